from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.ops.library import Library, load_library
from tests.plugins.conftest import emulated_kernels as emulated_kernels


@pytest.fixture
def emulated(emulated_kernels: Path) -> Library:
    """The library that runs the kernels on the CPU, on host memory."""
    return load_library(emulated_kernels)
