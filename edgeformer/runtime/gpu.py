"""Is there a GPU, and a TensorRT to run engines on it?"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from typing import Literal

from edgeformer.errors import EnvironmentFault

__all__ = ["Flavour", "can_run_engine", "gpu_fault", "installed_flavours"]

Flavour = Literal["tensorrt", "tensorrt_rtx"]
_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
_DRIVER = "libcuda.so.1"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def gpu_fault(load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> str | None:
    """Why CUDA work cannot run on this machine, or None where it can.

    Args:
        load: opens a shared library by name; raises OSError where it is not there.
    """
    try:
        driver = load(_DRIVER)
    except OSError:
        return f"no CUDA GPU: the NVIDIA driver ({_DRIVER}) is not installed"
    code = int(driver.cuInit(0))
    if code not in (0, _NO_DEVICE):
        return f"no CUDA GPU: the NVIDIA driver fails to start (cuInit gives error {code})"
    count = ctypes.c_int(0)
    if code == _NO_DEVICE or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return "no CUDA GPU: the NVIDIA driver is there and finds no device"
    return None


def installed_flavours() -> tuple[Flavour, ...]:
    """The TensorRT flavours whose Python module can be imported; none of them is imported."""
    return tuple(flavour for flavour in _FLAVOURS if importlib.util.find_spec(flavour) is not None)


def can_run_engine(flavour: Flavour | None = None, *, raise_error: bool = False) -> bool:
    """Whether an engine can be run here: a CUDA GPU, and the TensorRT that the engine was built with.

    Args:
        flavour: the TensorRT that the engine needs; None asks for any.
        raise_error: raise instead of returning False.

    Raises:
        EnvironmentFault: with ``raise_error``, what is missing and how to mend it.
    """
    fault = gpu_fault()
    if fault is not None:
        fault += ". Run the engine on the machine that it was built for"
    elif not installed_flavours() or flavour not in (None, *installed_flavours()):
        wanted = flavour or "tensorrt"
        fault = f"the Python module {wanted!r} is not installed: pip install {wanted.replace('_', '-')}"
    if fault is not None and raise_error:
        raise EnvironmentFault(fault)
    return fault is None
