"""Programs on a machine of stand-ins for the driver and TensorRT: one with a GPU, as far as the runtime can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.runtime_faults.faults import Flavour, environment_of
from benchmarks.runtime_faults.run import doubles_of
from edgeformer.ops.library_files import BUILD_COMMAND, RUNTIME, development_builds

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Done:
    """What a program did.

    Attributes:
        printed: its lines.
        done: what the stand-in for TensorRT noted, in order.
    """

    printed: list[str]
    done: list[str]


def run_with_stand_ins(
    code: str, *arguments: str | Path, folder: Path, flavour: Flavour = "tensorrt_rtx", **environment: str
) -> Done:
    """Run Python code in a process of its own, or skip the test where the stand-ins are not built.

    Args:
        code: that is run.
        arguments: of it, in ``sys.argv``.
        folder: for the stand-in's notes.
        flavour: of the TensorRT that there is.
        environment: further variables.
    """
    libraries = development_builds(RUNTIME)
    doubles = doubles_of(libraries[0]) if libraries else None
    if doubles is None:
        pytest.skip(f"the stand-ins for TensorRT and the driver are not built: {BUILD_COMMAND}")
    log = folder / "noted.txt"
    log.unlink(missing_ok=True)
    others = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEFORMER_", "FAKE_"))}
    machine = {
        **others,
        **environment_of(doubles, log, flavour, {}),
        "EDGEFORMER_RUNTIME_LIBRARY": str(libraries[0]),
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=machine)
    assert done.returncode == 0, done.stderr
    return Done(done.stdout.splitlines(), log.read_text().split() if log.exists() else [])
