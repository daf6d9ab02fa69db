"""Copies the package onnxruntime into FOLDER and hides AVX-512 from the copy: hide_avx512.py FOLDER.

onnxruntime has no setting for its instruction sets. It uses AVX-512 only if the CPU supports AVX-512 (CPUID)
and the operating system saves the registers of AVX-512 (XGETBV). In the copy, every XGETBV is replaced by two
instructions of the same total length. Their result is always 7, as if the operating system saved only the
registers up to those of AVX.
"""

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

# XOR ECX, ECX or MOV RBP, RDX precedes each XGETBV. Both are part of the pattern, because the three bytes of
# XGETBV alone also occur inside other instructions.
XGETBV = re.compile(rb"(\x31\xc9|\x48\x89\xd5)\x0f\x01\xd0")
# PUSH 7 and POP RAX set the result to 7.
SEVEN = b"\\1\x6a\x07\x58"

(folder,) = sys.argv[1:]
package = Path(find_spec("onnxruntime").origin).parent
copy = Path(folder) / "onnxruntime"
shutil.rmtree(copy, ignore_errors=True)
shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "libonnxruntime.so*"))
(library,) = (copy / "capi").glob("onnxruntime_pybind11_state*.so")
patched, count = XGETBV.subn(SEVEN, library.read_bytes())
# The pattern misses a check that has a different form, so verify the count by hand for each new version.
if count != 4:
    sys.exit(f"{library.name} has {count} XGETBV instructions, expected 4")
library.write_bytes(patched)
