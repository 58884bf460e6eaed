"""What a board's own files and programs say of it: memory, swap, power mode. Nothing is changed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "power_mode", "read_memory"]

_ROOT = Path("/")
_MEMINFO = Path("proc/meminfo")
_NVPMODEL = "nvpmodel"
_NVPMODEL_FOLDER = "usr/sbin"
_SECONDS = 10


@dataclass(frozen=True)
class Memory:
    """Memory of the host, in bytes; on a Jetson it is the GPU's, too.

    Attributes:
        total: all of it.
        available: what programs can still have without swapping.
        swap: swap space, compressed memory (zram) included.
    """

    total: int
    available: int
    swap: int


def read_memory(root: Path = _ROOT) -> Memory | None:
    """The memory of this machine; ``None`` where the kernel does not tell.

    Args:
        root: where the machine's file system begins.
    """
    try:
        text = (root / _MEMINFO).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    if "MemTotal" not in sizes:
        return None
    return Memory(sizes["MemTotal"], sizes.get("MemAvailable", 0), sizes.get("SwapTotal", 0))


def power_mode(root: Path = _ROOT) -> str | None:
    """The name of a Jetson's power mode, such as ``MAXN`` or ``15W``; ``None`` where ``nvpmodel`` does not tell.

    Args:
        root: where the machine's file system begins, for where ``nvpmodel`` is looked for besides the path.
    """
    program = shutil.which(_NVPMODEL) or shutil.which(_NVPMODEL, path=str(root / _NVPMODEL_FOLDER))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^NV Power Mode:\s*(?:MODE_)?(\S+)\s*$", done.stdout, re.MULTILINE)
    return found.group(1) if found else None
