"""Writes the pixels that Pillow reads from each file: reference.py CORPORA PIXELS

For each file PATH of the folder CORPORA, the script writes the picture as preprocess should store it, before the
encoding as JPEG, to PIXELS/PATH.ppm. If Pillow refuses the file, the script writes the reason to PIXELS/PATH.refused.
The picture is the first frame, upright, in sRGB, on white, and resized as preprocess resizes it.

Many of the files are damaged on purpose. A separate process with little memory and time reads each of them.
"""

import io
import os
import resource
import sys
import warnings
from pathlib import Path

from PIL import Image, ImageChops, ImageCms, ImageOps

# The formats that both preprocess and Pillow read. Pillow reads many others, but no HEIC.
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]
# These limits are not below the defaults of preprocess.
MAX_PIXELS = 64_000_000
MAX_SIDE = 16_384
SHORTER_SIDE = 256

MAX_BYTES = 2 << 30
MAX_CPU_SECONDS = 60


def main():
    corpora, pixels = map(Path, sys.argv[1:])
    # The script itself refuses large pictures, so Pillow need not warn about them.
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    Image.init()
    for path in sorted(path for path in corpora.rglob("*") if path.is_file()):
        output = str(pixels / path.relative_to(corpora))
        os.makedirs(os.path.dirname(output), exist_ok=True)
        child = os.fork()
        if child == 0:
            write_reference(path, output)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            Path(output + ".refused").write_text(f"Pillow ended with status {os.waitstatus_to_exitcode(status)}\n")


def write_reference(path, output):
    # libtiff writes warnings about damaged files.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    try:
        picture = read_picture(path.read_bytes())
    except Exception as error:  # Pillow raises exceptions of many types for damaged files.
        Path(output + ".refused").write_text(f"{type(error).__name__}: {error}\n")
    else:
        picture.save(output + ".ppm", "PPM")


def read_picture(file):
    with Image.open(io.BytesIO(file), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise ValueError(f"{width} × {height} pixels exceed the limits")
        image.load()
        image = ImageOps.exif_transpose(image)
        colours, alpha = split_alpha(image)
        colours = to_srgb(colours, image.info.get("icc_profile"))
    if alpha:
        white = Image.new("RGB", colours.size, "white")
        colours = Image.composite(colours, white, alpha)
    return colours.resize(target_size(*colours.size), Image.Resampling.LANCZOS)


def split_alpha(image):
    """Returns an image of 8 bits per channel without alpha, and its alpha channel, or None if the image is opaque."""
    if image.mode in ("I", "F"):
        raise ValueError("the file does not state its largest value")
    if image.mode.startswith("I;16"):
        return split_16_bits(image)
    if image.mode in ("1", "La"):
        image = image.convert("L" if image.mode == "1" else "LA")
    if image.mode in ("P", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    return image, None


def split_16_bits(image):
    """Does the same for 16-bit grey, whose conversion in Pillow clips all values above 255."""
    samples = image.tobytes()
    high, low = samples[1::2], samples[0::2]
    if image.mode == "I;16B":
        high, low = low, high
    high, low = (Image.frombytes("L", image.size, half) for half in (high, low))
    transparent = image.info.get("transparency")
    if transparent is None:
        return high, None
    return high, ImageChops.lighter(
        high.point(lambda level: 255 * (level != transparent >> 8)),
        low.point(lambda level: 255 * (level != transparent & 255)),
    )


def to_srgb(image, icc_profile):
    if icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (OSError, ImageCms.PyCMSError):
            pass  # A profile that is damaged or made for other channels is ignored.
    return image.convert("RGB")


def target_size(width, height):
    short = min(width, height)
    if short <= SHORTER_SIDE:
        return width, height
    return tuple(max(1, (side * SHORTER_SIDE + short // 2) // short) for side in (width, height))


main()
