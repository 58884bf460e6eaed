"""What the run says of the machine it ran on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

import edgeformer
from edgeformer.errors import EnvironmentFault
from kernel_lab.build import ROOT, find_nvcc
from kernel_lab.records import Machine

__all__ = ["describe_gpu", "describe_rehearsal", "require_gpu"]


def require_gpu() -> None:
    """Raises EnvironmentFault, with the way out, where torch cannot use a GPU."""
    if not torch.cuda.is_available():
        raise EnvironmentFault(
            f"no GPU that torch {torch.__version__} can use: run this on a machine with an NVIDIA GPU, its driver and "
            "a CUDA build of PyTorch; --rehearse goes through the same steps on the CPU, without measuring anything"
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


def describe_gpu() -> Machine:
    """The current CUDA device."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    versions = _versions()
    query = _output("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader,nounits")
    driver, _, clock = query.partition("\n")[0].partition(",")
    if driver:
        versions["driver"] = driver.strip()
    try:
        clock_mhz: float | None = float(clock)
    except ValueError:  # "[N/A]", or no nvidia-smi
        clock_mhz = None
    return Machine(
        name=properties.name,
        compute_capability=properties.major * 10 + properties.minor,
        multiprocessors=properties.multi_processor_count,
        memory_bytes=properties.total_memory,
        l2_bytes=properties.L2_cache_size,
        # Newer than some torch that could run this; nothing but the record depends on it.
        max_shared_bytes=getattr(properties, "shared_memory_per_block_optin", 0),
        sm_clock_mhz=clock_mhz,
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
