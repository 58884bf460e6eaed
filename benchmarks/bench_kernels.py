#!/usr/bin/env python3
"""Measure the fused kernels on this machine's GPU, or render what was measured; --help says how.

Needs a GPU with its driver, nvcc, and a Python with a CUDA build of PyTorch, NumPy, onnx, ml_dtypes and Pillow;
nothing is installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The package and its measuring tools are used from the sources: the machine that measures need not have them installed.
sys.path[0] = str(ROOT)
VENV = ROOT / ".venv"
if Path(sys.prefix) != VENV and (VENV / "bin" / "python").exists():
    os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), *sys.argv])

from benchmarks.kernel_lab.cli import bench_kernels  # noqa: E402  only now can it be found

if __name__ == "__main__":
    sys.exit(bench_kernels())
