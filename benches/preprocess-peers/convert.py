"""Converts a picture to formats that no crate here encodes: convert.py FROM TO.

`.jpg` becomes a progressive JPEG with the tables and sampling of FROM and libjpeg's scans, `.png` a PNG with
libpng's filters and compression, `.webp` a lossy WebP, and `.bmp` the uncompressed pixels.
"""

import sys

from PIL import Image

source, to = sys.argv[1:]
settings = {"jpg": {"quality": "keep", "subsampling": "keep", "progressive": True}, "webp": {"quality": 85}}
Image.open(source).save(to, **settings.get(to.rsplit(".", 1)[1], {}))
