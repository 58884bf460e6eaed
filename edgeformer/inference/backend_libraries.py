"""Where Python's packages keep the shared libraries that run models, without importing the packages."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeformer.ops.library_files import RTX_ALIAS_NAME

__all__ = ["has_tensorrt", "onnx_runtime_library", "tensorrt_library"]


@dataclass(frozen=True)
class _Places:
    """Where TensorRT's library, or that of TensorRT-RTX, is looked for.

    Attributes:
        package: of Python, whose folder has it.
        pattern: its file there.
        names: that the dynamic linker knows it by, as the runtime asks for them.
    """

    package: str
    pattern: str
    names: tuple[str, ...]


_TENSORRT = {
    "tensorrt": _Places("tensorrt_libs", "libnvinfer.so.*", ("libnvinfer.so.11", "libnvinfer.so.10")),
    "tensorrt_rtx": _Places("tensorrt_rtx_libs", f"{RTX_ALIAS_NAME}.*", (f"{RTX_ALIAS_NAME}.1",)),
}


def onnx_runtime_library() -> Path | None:
    """The library in the package onnxruntime, or None; the runtime then looks for it elsewhere."""
    return None if _named("EDGEFORMER_ONNXRUNTIME_LIBRARY") else _first("onnxruntime", "capi/libonnxruntime.so.*")


def tensorrt_library(flavour: str) -> Path | None:
    """TensorRT's library, or that of TensorRT-RTX, in Python's packages, or None.

    Args:
        flavour: "tensorrt" or "tensorrt_rtx".
    """
    places = _TENSORRT[flavour]
    return None if _named(_variable(flavour)) else _first(places.package, places.pattern)


def has_tensorrt(flavour: str) -> bool:
    """Whether the runtime will find TensorRT's library, or that of TensorRT-RTX.

    Args:
        flavour: "tensorrt" or "tensorrt_rtx".
    """
    named = _named(_variable(flavour))
    if not named and tensorrt_library(flavour) is not None:
        return True
    return any(map(_opens, (named,) if named else _TENSORRT[flavour].names))


def _variable(flavour: str) -> str:
    return f"EDGEFORMER_{flavour.upper()}_LIBRARY"


def _named(variable: str) -> str:
    """The library that the user names; the runtime reads the variable itself."""
    return os.environ.get(variable, "")


def _opens(library: str) -> bool:
    # There is no other way to ask the dynamic linker, and who asks is about to use it.
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_LOCAL)
    except OSError:
        return False
    return True


def _first(package: str, pattern: str) -> Path | None:
    return next((path for folder in _folders(package) for path in sorted(folder.glob(pattern))), None)


def _folders(package: str) -> Iterator[Path]:
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a module that somebody put into sys.modules by hand has no specification
        return
    yield from map(Path, (found.submodule_search_locations or ()) if found else ())
