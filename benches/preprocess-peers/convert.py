"""Converts the picture file FROM to a format that the benchmark's crates do not encode: convert.py FROM TO

The extension of TO selects the format:
    .jpg    a progressive JPEG with the quantisation tables and sampling of FROM, and with libjpeg's scans
    .png    a PNG with the filters and compression that libpng uses
    .webp   a lossy WebP
    .bmp    the uncompressed pixels
"""

import sys

from PIL import Image

source, to = sys.argv[1:]
settings = {"jpg": {"quality": "keep", "subsampling": "keep", "progressive": True}, "webp": {"quality": 85}}
Image.open(source).save(to, **settings.get(to.rsplit(".", 1)[1], {}))
