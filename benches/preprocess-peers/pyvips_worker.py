"""libvips by way of pyvips as a worker: see worker.py.

`thumbnail` decodes JPEG and WebP smaller where it can, and resizes with Lanczos3. A picture is only
computed when it is encoded or asked for. The cache of results is off.
"""

import pyvips

import worker


def resize(data, size):
    width, height = size
    return pyvips.Image.thumbnail_buffer(data, width, height=height, size="force")


def encode(image):
    return image.jpegsave_buffer(Q=worker.QUALITY, subsample_mode="off")


def main():
    pyvips.cache_set_max(0)
    libvips = ".".join(str(pyvips.version(part)) for part in range(3))
    name = f"pyvips {pyvips.__version__} with libvips {libvips}"
    worker.serve(name, resize, encode, lambda image: image.write_to_memory())


if __name__ == "__main__":
    main()
