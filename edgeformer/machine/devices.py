"""The GPUs and the driver of this machine, as the CUDA driver library reports them; nothing else is needed."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Gpu", "GpuSurvey", "find_gpus"]

# CUdevice_attribute of cuda.h.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_DRIVER_LIBRARY = "libcuda.so.1"
_DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: its CUDA device number.
        name: as the driver reports it.
        sm: compute capability times ten.
        memory_bytes: its memory, bytes.
    """

    index: int
    name: str
    sm: int
    memory_bytes: int


@dataclass(frozen=True)
class GpuSurvey:
    """What the driver reports.

    Attributes:
        gpus: the GPUs, by device number.
        driver_version: version of the kernel driver; None if it cannot be read.
        cuda_version: the newest CUDA that the driver supports, such as ``13.0``.
        problem: why there are no GPUs; empty if there are.
    """

    gpus: tuple[Gpu, ...]
    driver_version: str | None
    cuda_version: str | None
    problem: str


def find_gpus() -> GpuSurvey:
    """Ask the CUDA driver for its GPUs. Never raises: that there is no driver is an answer, too."""
    version = _kernel_driver_version()
    try:
        driver = ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError:
        return GpuSurvey((), version, None, f"no NVIDIA driver ({_DRIVER_LIBRARY} cannot be loaded)")
    if status := driver.cuInit(0):
        return GpuSurvey((), version, None, f"the NVIDIA driver does not start (cuInit gives CUDA error {status})")
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    count = ctypes.c_int()
    if status := driver.cuDeviceGetCount(ctypes.byref(count)):
        return GpuSurvey((), version, cuda, f"the NVIDIA driver lists no GPU (CUDA error {status})")
    gpus = tuple(_gpu(driver, index) for index in range(count.value))
    return GpuSurvey(gpus, version, cuda, "" if gpus else "the NVIDIA driver finds no GPU")


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return Gpu(index, name.value.decode(errors="replace"), major.value * 10 + minor.value, memory.value)


def _kernel_driver_version() -> str | None:
    try:
        text = _DRIVER_VERSION_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
    return found.group(1) if found else None
