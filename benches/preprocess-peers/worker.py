"""What a tool's worker and the bench say to each other.

Started in the folder of the pictures. Lines in, with the names of files in that folder:

    load FILE WIDTH HEIGHT    holds the bytes of a picture, which is to be made this large
    run FILE TIMES            bytes → smaller picture → JPEG, so many times
    jpeg FILE TO              writes the JPEG that this makes
    pixels FILE TO            writes the smaller picture as it is before it is encoded: RGB, 8 bits

and out: `ready NAME VERSION`, with ` with LIBRARY VERSION` behind it or not, once; for `run` the processor
time of the process, user and system, and the wall time, both in nanoseconds; `done` for everything else.
The end of the input ends it.
"""

import resource
import sys
from pathlib import Path
from time import perf_counter_ns

# As this project stores pictures; colour is stored in full, 4:4:4.
QUALITY = 95


def cpu_ns():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return round((usage.ru_utime + usage.ru_stime) * 1e9)


def serve(name, resize, encode, pixels):
    """Answers lines until there are no more.

    `resize(data, (width, height))` gives a picture, `encode` its JPEG, `pixels` its RGB bytes.
    """
    loaded = {}
    print("ready", name, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["load", file, width, height]:
                loaded[file] = (Path(file).read_bytes(), (int(width), int(height)))
                print("done", flush=True)
            case ["run", file, times]:
                data, size = loaded[file]
                wall, cpu = perf_counter_ns(), cpu_ns()
                for _ in range(int(times)):
                    encode(resize(data, size))
                print(cpu_ns() - cpu, perf_counter_ns() - wall, flush=True)
            case ["jpeg", file, to]:
                Path(to).write_bytes(encode(resize(*loaded[file])))
                print("done", flush=True)
            case ["pixels", file, to]:
                Path(to).write_bytes(pixels(resize(*loaded[file])))
                print("done", flush=True)
            case _:
                sys.exit(f"not a command: {line!r}")
