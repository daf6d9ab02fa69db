"""Copies the package onnxruntime into FOLDER and makes the copy blind to AVX-512.

onnxruntime has no setting for the instructions that it uses. It asks the CPU (CPUID) what it has and the
operating system (XGETBV) which registers it keeps, and takes AVX-512 only where both say so. In the copy
every XGETBV is replaced by two instructions of the same length whose answer is always 7: the registers
up to AVX's.

    python blind_to_avx512.py FOLDER
"""

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

# XOR ECX, ECX or MOV RBP, RDX, then XGETBV: its three bytes alone are also found inside of other code.
XGETBV = re.compile(rb"(\x31\xc9|\x48\x89\xd5)\x0f\x01\xd0")
# PUSH 7, POP RAX.
SEVEN = b"\\1\x6a\x07\x58"


def main():
    (folder,) = sys.argv[1:]
    package = Path(find_spec("onnxruntime").origin).parent
    copy = Path(folder) / "onnxruntime"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "libonnxruntime.so*"))
    (library,) = (copy / "capi").glob("onnxruntime_pybind11_state*.so")
    blind, count = XGETBV.subn(SEVEN, library.read_bytes())
    # What asks in another way would go unnoticed, so the count is checked for each version by hand.
    if count != 4:
        sys.exit(f"{library.name} asks in {count} places, not in the four that are known")
    library.write_bytes(blind)


if __name__ == "__main__":
    main()
