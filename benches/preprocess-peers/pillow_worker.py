"""Pillow as a worker: see worker.py.

    pillow_worker.py full|draft

`full` decodes all pixels; `draft` lets the JPEG decoder give fewer of them, at least twice as many as are
wanted in each direction.
"""

import sys
from io import BytesIO

import PIL
from PIL import Image, features

import worker


def resize(data, size, draft):
    image = Image.open(BytesIO(data))
    if draft:
        width, height = size
        image.draft("RGB", (2 * width, 2 * height))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def encode(image):
    out = BytesIO()
    image.save(out, "JPEG", quality=worker.QUALITY, subsampling="4:4:4")
    return out.getvalue()


def main():
    [variant] = sys.argv[1:]
    name = f"Pillow {PIL.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}"
    worker.serve(name, lambda data, size: resize(data, size, variant == "draft"), encode, Image.Image.tobytes)


if __name__ == "__main__":
    main()
