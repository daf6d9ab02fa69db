"""OpenCV as a worker: see worker.py.

JPEGs are decoded to the smallest of 1/1, 1/2, 1/4, 1/8 that is still twice as large as what is wanted, and
then averaged: OpenCV's Lanczos does not look at all pixels when it makes a picture smaller.
"""

import cv2
import numpy as np

import worker

REDUCED = [(8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2)]
JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    worker.QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


def jpeg_size(data):
    """Width and height, from the frame header."""
    at = 2
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xC2:
            height, width = (int.from_bytes(data[at + by : at + by + 2], "big") for by in (5, 7))
            return width, height
        at += 2 + length


def flag(data, size):
    if not data.startswith(b"\xff\xd8"):
        return cv2.IMREAD_COLOR
    (width, height), (to_width, to_height) = jpeg_size(data), size
    for by, reduced in REDUCED:
        if width // by >= 2 * to_width and height // by >= 2 * to_height:
            return reduced
    return cv2.IMREAD_COLOR


def resize(data, size):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag(data, size))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def encode(image):
    _, out = cv2.imencode(".jpg", image, JPEG)
    return out.tobytes()


def pixels(image):
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes()


def main():
    cv2.setNumThreads(1)
    worker.serve(f"OpenCV {cv2.__version__}", resize, encode, pixels)


if __name__ == "__main__":
    main()
