"""Makes of a picture what no crate here makes: `convert.py FROM TO`.

To `.jpg`, a progressive JPEG of the same tables and sampling, in the scans that libjpeg makes; to `.png`, a
PNG with the filters and the compression of libpng; to `.webp`, a lossy WebP; to `.bmp`, all of its pixels.
"""

import sys
from pathlib import Path

from PIL import Image


def main():
    source, to = sys.argv[1:]
    image = Image.open(source)
    match Path(to).suffix:
        case ".jpg":
            image.save(to, quality="keep", subsampling="keep", progressive=True)
        case ".webp":
            image.save(to, quality=85)
        case _:
            image.save(to)


if __name__ == "__main__":
    main()
