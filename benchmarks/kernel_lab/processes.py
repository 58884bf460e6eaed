"""Processes that a run starts: where they find its modules, and how they end with all that they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.kernel_lab.build import ROOT

__all__ = ["end", "environment"]


def environment(packages: Sequence[Path] = ()) -> dict[str, str]:
    """This process's, with the sources, and before them ``packages``, on Python's path."""
    # An empty part would put the current folder on it.
    path = [*map(str, packages), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process that this one has started, with its children and theirs, and wait for it.

    They need not be a group of their own: what kills this process's group then takes them along.
    """
    if process.poll() is not None:
        return
    family = [process.pid]
    for pid in family:  # grows on the way
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # starts no more children
        family += [child for child in _children(pid) if child not in family]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            # The name, in brackets, may hold anything; state and parent come behind it.
            if int(status.read_text(errors="replace").rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found
