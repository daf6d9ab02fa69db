# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the crops that Pillow computes: reference.py

The test in classify/src/pixels/tests/pillow.rs compares them with the crops of this project. The script writes a line
per crop to cases.tsv, and the bytes of all crops in the same order to pixels.bin. Both are in the folder of this script.
They were last written with Pillow 13.0.0.

The rounding is copied from torchvision (Resize, CenterCrop), timm (ResizeKeepRatio) and Pillow (ImageOps.pad).
"""

import math
from pathlib import Path

from PIL import Image, ImageOps

FOLDER = Path(__file__).parent
SAMPLES = FOLDER / "../../../../samples"
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def noise(width, height):
    """Returns a picture whose neighbouring pixels differ, with patches of the darkest and the brightest value."""
    picture = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            patch = (x // 4 + y // 3) % 4
            value = lambda channel: (x * x * 7 + y * y * 13 + x * y * 5 + x * 37 + y * 91 + channel * 71) % 251
            pixel = (0, 0, 255) if patch == 0 else (255, 255, 0) if patch == 1 else tuple(map(value, range(3)))
            picture.putpixel((x, y), pixel)
    return picture


def load(name):
    return noise(*map(int, name[len("noise-") :].split("x"))) if "noise" in name else Image.open(SAMPLES / name)


def shorter_side(picture, size, method):
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    return picture.resize((size, new_long) if width <= height else (new_long, size), method)


def cover(picture, height, width, method):
    ratio = min(picture.width / width, picture.height / height)
    return picture.resize((round(picture.width / ratio), round(picture.height / ratio)), method)


def centre_crop(picture, height, width):
    top, left = int(round((picture.height - height) / 2.0)), int(round((picture.width - width) / 2.0))
    return picture.crop((left, top, left + width, top + height))


def compute(picture, resize, method, height, width, channels):
    picture = picture.convert("L" if channels == "grey" else "RGB")
    kind, _, numbers = resize.partition(":")
    numbers = [int(number) for number in numbers.split(",") if number]
    if kind == "shorter":
        picture = centre_crop(shorter_side(picture, numbers[0], method), height, width)
    elif kind == "cover":
        picture = centre_crop(cover(picture, *numbers, method), height, width)
    elif kind == "squash":
        picture = picture.resize((width, height), method)
    else:
        color = numbers[0] if channels == "grey" else tuple(numbers)
        picture = ImageOps.pad(picture, (width, height), method, color)
    assert picture.size == (width, height)
    if channels == "bgr":
        picture = Image.merge("RGB", picture.split()[::-1])
    return picture.tobytes()


def cases():
    crops = {"coffee_224.png": (16, 10, 14), "noise-41x29": (16, 10, 14), "noise-11x15": (19, 18, 14)}
    for name, (side, height, width) in crops.items():
        # A crop fraction of 0.8, rounded as in timm.
        covered = [math.floor(length / 0.8) for length in (height, width)]
        resizes = [f"shorter:{side}", "cover:{},{}".format(*covered), "squash", "letterbox:114,10,200"]
        for filter_name in FILTERS:
            for resize in resizes:
                yield name, filter_name, resize, height, width, "rgb"
    for filter_name in FILTERS:
        yield "noise-41x29", filter_name, "shorter:16", 16, 16, "bgr"
        yield "noise-41x29", filter_name, "shorter:16", 13, 12, "grey"
        yield "noise-11x15", filter_name, "letterbox:114,114,114", 18, 21, "grey"


def main():
    lines = ["picture\tfilter\tresize\theight\twidth\tchannels\n"]
    pixels = b""
    for name, filter_name, resize, height, width, channels in cases():
        pixels += compute(load(name), resize, FILTERS[filter_name], height, width, channels)
        lines.append(f"{name}\t{filter_name}\t{resize}\t{height}\t{width}\t{channels}\n")
    (FOLDER / "cases.tsv").write_text("".join(lines))
    (FOLDER / "pixels.bin").write_bytes(pixels)


if __name__ == "__main__":
    main()
