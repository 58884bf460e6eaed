"""What a device needs to measure: NumPy, pydantic, and nothing that builds models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "onnx", "onnxruntime", "polygraphy", "scipy", "pynvml", "mlperf_loadgen"}


@pytest.mark.parametrize("module", ["bench", "loadgen", "export_times"])
def test_importing_the_room_pulls_nothing_heavy_in(module: str) -> None:
    probe = f"import sys, edgeformer.latency.{module}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == ""
