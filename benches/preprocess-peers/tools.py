"""Runs an image library as a worker on one thread: tools.py pillow|pillow-draft|pyvips|opencv

`worker.py` describes the protocol. `load JOB FILE WIDTH HEIGHT jpeg|pixels` reads a picture file. The job
scales the picture to WIDTH×HEIGHT pixels. The result is a JPEG, or the RGB pixels before they are encoded.
"""

import sys
from functools import partial
from io import BytesIO
from pathlib import Path

import worker

# Quality of the JPEGs, equal to the quality of the pictures that this project stores.
QUALITY = 95


def pillow(is_draft=False):
    """Uses Pillow. With `is_draft`, its JPEG decoder scales down, but not below twice the wanted size."""
    import PIL
    from PIL import Image, features

    def resize(data, size):
        image = Image.open(BytesIO(data))
        if is_draft:
            image.draft("RGB", tuple(2 * side for side in size))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)

    def encode(image):
        output = BytesIO()
        image.save(output, "JPEG", quality=QUALITY, subsampling="4:4:4")
        return output.getvalue()

    name = f"Pillow {PIL.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}"
    return name, resize, encode, Image.Image.tobytes


def pyvips():
    """Uses pyvips. `thumbnail` lets the JPEG and WebP decoders scale down, then resizes with Lanczos3.

    libvips computes a picture only when the picture is encoded or read. Its cache of results is off.
    """
    import pyvips

    pyvips.cache_set_max(0)

    def resize(data, size):
        return pyvips.Image.thumbnail_buffer(data, size[0], height=size[1], size="force")

    def encode(image):
        return image.jpegsave_buffer(Q=QUALITY, subsample_mode="off")

    libvips = ".".join(str(pyvips.version(part)) for part in range(3))
    return f"pyvips {pyvips.__version__} with libvips {libvips}", resize, encode, pyvips.Image.write_to_memory


def opencv():
    """Uses OpenCV. A JPEG is decoded at 1/8, 1/4, 1/2 or 1/1 of its size, then its pixels are averaged.

    The chosen fraction is the smallest that gives at least twice the wanted size. The pixels are averaged
    (INTER_AREA) because OpenCV's Lanczos does not read all pixels when it scales down.
    """
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    flags = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

    def jpeg_size(data):
        """Returns the width and height from the frame header."""
        start = 2
        while not 0xC0 <= data[start + 1] <= 0xC2:
            start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        height = int.from_bytes(data[start + 5 : start + 7], "big")
        width = int.from_bytes(data[start + 7 : start + 9], "big")
        return width, height

    def decode_flag(data, size):
        if data.startswith(b"\xff\xd8"):
            width, height = jpeg_size(data)
            for divisor, flag in flags.items():
                if width // divisor >= 2 * size[0] and height // divisor >= 2 * size[1]:
                    return flag
        return cv2.IMREAD_COLOR

    def resize(data, size):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), decode_flag(data, size))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def encode(image):
        return cv2.imencode(".jpg", image, settings)[1].tobytes()

    return f"OpenCV {cv2.__version__}", resize, encode, lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def start():
    """Returns the name of the tool, the function that loads a job, and the only instance."""
    pillow_draft = partial(pillow, is_draft=True)
    tools = {"pillow": pillow, "pillow-draft": pillow_draft, "pyvips": pyvips, "opencv": opencv}
    name, resize, encode, to_pixels = tools[sys.argv[1]]()

    def load(file, width, height, output):
        finish = {"jpeg": encode, "pixels": to_pixels}[output]
        return Path(file).read_bytes(), (int(width), int(height)), finish

    def run(job):
        data, size, finish = job
        return finish(resize(data, size))

    return name, load, [run]


worker.serve(start)
