"""The libraries for a device, cross-compiled by the way: `scripts/cross_device.py` of a source checkout does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from edgeformer.engine.targets import Target
from edgeformer.supervision.limits import limited

__all__ = ["can_cross_compile", "cross_command", "cross_compile", "preset_of"]

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = Path("scripts", "cross_device.py")
_TOOLS = ("cmake", "nvcc", "aarch64-linux-gnu-g++")
# The presets of the cross build, and the CUDA whose runtime each of them needs.
_CUDA = {"jetson-orin": "12.6", "jetson": "13.0"}
_LAST_LINES = 5


def preset_of(target: Target) -> str | None:
    """CMake's preset for a device; ``None`` where there is none for it.

    Orin gets what runs on JetPack 6 and on later ones.
    """
    if target.cpu != "aarch64":
        return None
    return "jetson-orin" if target.sm == 87 else "jetson"


def cross_command(target: Target) -> str:
    """The command that gets the libraries for a device, and the packages."""
    preset = preset_of(target)
    return "build it there (docs/building.md)" if preset is None else f"{_SCRIPT} --preset {preset}"


def can_cross_compile(target: Target, root: Path = _ROOT) -> bool:
    """Whether all is here for that: a source checkout, the compilers, and the CUDA runtime for Arm. Nothing is fetched.

    Args:
        target: the device.
        root: the folder of the checkout.
    """
    preset = preset_of(target)
    if preset is None or not (root / _SCRIPT).is_file():
        return False
    toolkit = root / "third_party" / "cuda" / _CUDA[preset] / "bin" / "nvcc"
    return toolkit.exists() and all(shutil.which(tool) for tool in _TOOLS)


def cross_compile(target: Target, root: Path = _ROOT) -> str:
    """Build the libraries for a device in the checkout's ``build`` folder; takes minutes the first time.

    Args:
        target: the device; `can_cross_compile` has to hold for it.
        root: the folder of the checkout.

    Returns:
        Why it failed, in the last lines that it printed; empty if it did not.

    Raises:
        EnvironmentFault: it took longer than its limit.
    """
    preset = preset_of(target)
    assert preset is not None
    command = [sys.executable, str(root / _SCRIPT), "--preset", preset, "--no-fetch"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with limited("engine", f"the cross build of {preset}", stop=process.kill), process:
        assert process.stdout is not None
        printed = process.stdout.read()
    return "" if process.returncode == 0 else "\n".join(printed.strip().splitlines()[-_LAST_LINES:])
