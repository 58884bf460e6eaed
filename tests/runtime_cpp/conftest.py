"""The C++ preprocessing, built for the CPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from edgeformer.ops.library_files import BUILD_COMMAND
from tests.runtime_cpp import preprocessing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def preprocessing_build() -> Path:
    """The folder of the newest build of ``runtime/tests/preprocessing``."""
    pattern = "*/runtime/tests/preprocessing/libedgeformer_emulated_preprocessing.so"
    newest = max((ROOT / "build").glob(pattern), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        pytest.skip(f"build/{pattern} is not built: {BUILD_COMMAND}")
    return newest.parent


@pytest.fixture(scope="session")
def library(preprocessing_build: Path) -> ctypes.CDLL:
    """The host's run, and the kernel on the emulation."""
    return preprocessing.load(preprocessing_build / "libedgeformer_emulated_preprocessing.so")
