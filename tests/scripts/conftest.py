from __future__ import annotations

import sys
from pathlib import Path

from tests.plugins.conftest import emulated_kernels as emulated_kernels
from tests.plugins.conftest import plugin_library as plugin_library

ROOT = Path(__file__).resolve().parents[2]
# The scripts find their package beside them; it is not installed.
sys.path.insert(0, str(ROOT / "scripts"))
