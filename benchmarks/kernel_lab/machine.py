"""What the run says of the machine it ran on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

import edgeformer
from benchmarks.kernel_lab.build import ROOT, find_nvcc
from benchmarks.kernel_lab.records import Machine
from edgeformer.errors import EnvironmentFault

__all__ = ["describe_gpu", "describe_rehearsal", "require_gpu", "sm_clock_mhz"]


def require_gpu() -> None:
    """Raises EnvironmentFault, with the way out, where torch cannot use a GPU."""
    if not torch.cuda.is_available():
        raise EnvironmentFault(
            "EF650",
            f"no GPU that torch {torch.__version__} can use: run this on a machine with an NVIDIA GPU, its driver and "
            "a CUDA build of PyTorch; --rehearse goes through the same steps on the CPU, without measuring anything",
        )


def _output(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _versions() -> dict[str, str]:
    versions = {
        "edgeformer": edgeformer.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda or "none"),
    }
    commit = _output("git", "rev-parse", "HEAD")
    if commit:
        dirty = _output("git", "status", "--porcelain", "--untracked-files=no")
        versions["commit"] = commit + (" with changes" if dirty else "")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["triton"] = importlib.metadata.version("triton")
    try:
        lines = _output(str(find_nvcc()), "--version").splitlines()
        versions["nvcc"] = next((line.rpartition("V")[2] for line in lines if "release" in line), "unknown")
    except EnvironmentFault:
        pass
    return versions


def _ask_driver(what: str) -> str:
    """One value of the first GPU from nvidia-smi; empty where there is none."""
    return _output("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits").partition("\n")[0].strip()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", or no nvidia-smi
        return None


def sm_clock_mhz() -> float | None:
    """The clock of the multiprocessors at this moment, where the driver says it."""
    return _number(_ask_driver("clocks.sm"))


def describe_gpu() -> Machine:
    """The current CUDA device."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    versions = _versions()
    driver = _ask_driver("driver_version")
    if driver:
        versions["driver"] = driver
    return Machine(
        name=properties.name,
        compute_capability=properties.major * 10 + properties.minor,
        multiprocessors=properties.multi_processor_count,
        memory_bytes=properties.total_memory,
        l2_bytes=properties.L2_cache_size,
        # Newer than some torch that could run this; nothing but the record depends on it.
        max_shared_bytes=getattr(properties, "shared_memory_per_block_optin", 0),
        sm_clock_mhz=_number(_ask_driver("clocks.max.sm")),
        versions=versions,
    )


def describe_rehearsal(library: Path) -> Machine:
    """The CPU that stands in for a GPU."""
    return Machine(
        name=f"rehearsal without a GPU ({library.name})",
        compute_capability=87,
        multiprocessors=16,
        memory_bytes=0,
        l2_bytes=0,
        max_shared_bytes=0,
        sm_clock_mhz=1000.0,
        versions=_versions(),
    )
