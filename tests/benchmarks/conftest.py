from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tests.plugins.conftest import emulated_kernels as emulated_kernels
from tests.plugins.conftest import plugin_library as plugin_library

ROOT = Path(__file__).resolve().parents[2]


def ended(pids: Sequence[int]) -> bool:
    """Whether all these processes have ended, or do so within seconds; an ended one may wait to be reaped."""
    for _ in range(100):
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        if not [state for state in states if state.exists() and ") Z " not in state.read_text()]:
            return True
        time.sleep(0.05)
    return False
