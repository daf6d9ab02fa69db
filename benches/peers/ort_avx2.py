"""onnxruntime without AVX-512 as a worker: the copy that blind_to_avx512.py has made."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(sys.prefix).parent / "avx2"))

import ort  # noqa: E402  what it imports is to be found there first

if __name__ == "__main__":
    ort.main()
