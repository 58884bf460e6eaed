from __future__ import annotations

from pathlib import Path

from tests.plugins.conftest import emulated_kernels as emulated_kernels
from tests.plugins.conftest import plugin_library as plugin_library

ROOT = Path(__file__).resolve().parents[2]
