"""JetPack: which one this Jetson has, and which TensorRT, CUDA and Python come with it.

The table is ``jetpack.json``. The lowest TensorRT for a Jetson, the presets of the cross build, what ``doctor`` says
and the tables in the documentation follow from it. A figure that no source gives is null there and ``None`` here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["JetPack", "Release", "find_release", "list_jetpacks", "lowest_tensorrt", "tensorrt_without_jetpack"]

_TABLE = Path(__file__).with_name("jetpack.json")
_RELEASE_FILE = Path("/etc/nv_tegra_release")
_RELEASE = re.compile(r"R(\d+)\s*\(release\)\s*,\s*REVISION:\s*(\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class JetPack:
    """One JetPack.

    Attributes:
        name: its number, such as ``6.2.1``.
        l4t: the releases of Jetson Linux (L4T) that belong to it.
        tensorrt: its TensorRT.
        cuda: its CUDA.
        python: the Python that its TensorRT is for.
        sms: compute capabilities, times ten, of the modules it runs on.
        source: where it was read.
        note: what the columns cannot say.
    """

    name: str
    l4t: tuple[str, ...]
    tensorrt: str | None
    cuda: str | None
    python: str | None
    sms: tuple[int, ...]
    source: str
    note: str = ""

    @property
    def contents(self) -> str:
        """What comes with it, in words: ``TensorRT 10.3, CUDA 12.6, Python 3.10``."""
        parts = {"TensorRT": self.tensorrt, "CUDA": self.cuda, "Python": self.python}
        return ", ".join(f"{name} {version}" for name, version in parts.items() if version) or "versions not known"


@dataclass(frozen=True)
class Release:
    """The Jetson Linux of this machine.

    Attributes:
        l4t: its version; empty where its file cannot be read.
        jetpack: the JetPack it belongs to; ``None`` if the table has none.
        too_old: it is older than every release in the table, so its TensorRT is older than what works.
    """

    l4t: str
    jetpack: JetPack | None
    too_old: bool


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


@cache
def list_jetpacks() -> tuple[JetPack, ...]:
    """Every JetPack of the table, oldest first."""
    lists = ("l4t", "sms")
    return tuple(
        JetPack(**{**record, **{name: tuple(record[name]) for name in lists}}) for record in _table()["jetpacks"]
    )


def tensorrt_without_jetpack() -> tuple[str, ...]:
    """Releases of TensorRT that no JetPack brings, by their first two numbers."""
    return tuple(_table()["tensorrt_without_jetpack"]["versions"])


def lowest_tensorrt(sm: int | None = None) -> str:
    """The lowest TensorRT that a JetPack brings.

    Args:
        sm: compute capability times ten of the module; ``None`` for any.

    Raises:
        LookupError: no JetPack is for modules of this compute capability.
    """
    versions = [
        jetpack.tensorrt for jetpack in list_jetpacks() if jetpack.tensorrt and (sm is None or sm in jetpack.sms)
    ]
    if not versions:
        raise LookupError(f"no JetPack is for SM {sm}")
    return min(versions, key=_numbers)


def find_release() -> Release | None:
    """The Jetson Linux of this machine; ``None`` if it is no Jetson."""
    try:
        text = _RELEASE_FILE.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        text = ""
    found = _RELEASE.search(text)
    if found is None:
        return Release(l4t="", jetpack=None, too_old=False)
    l4t = f"{found.group(1)}.{found.group(2)}"
    jetpack = next((one for one in list_jetpacks() if l4t in one.l4t), None)
    oldest = min(_numbers(known) for one in list_jetpacks() for known in one.l4t)
    return Release(l4t=l4t, jetpack=jetpack, too_old=_numbers(l4t) < oldest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
