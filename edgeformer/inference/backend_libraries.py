"""Where Python's packages keep the shared libraries that run models, without importing the packages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from edgeformer.ops.library_files import RTX_ALIAS_NAME

__all__ = ["onnx_runtime_library", "tensorrt_library"]

# Folders of the packages that have TensorRT's libraries, and the libraries' names.
_TENSORRT = {
    "tensorrt": (("tensorrt_libs",), "libnvinfer.so.*"),
    "tensorrt_rtx": (("tensorrt_rtx_libs",), f"{RTX_ALIAS_NAME}.*"),
}


def onnx_runtime_library() -> Path | None:
    """The library in the package onnxruntime, or None; the runtime then looks for it elsewhere."""
    return None if _is_set("EDGEFORMER_ONNXRUNTIME_LIBRARY") else _first("onnxruntime", "capi/libonnxruntime.so.*")


def tensorrt_library(flavour: str) -> Path | None:
    """TensorRT's library, or that of TensorRT-RTX, in Python's packages, or None.

    Args:
        flavour: "tensorrt" or "tensorrt_rtx".
    """
    if _is_set(f"EDGEFORMER_{flavour.upper()}_LIBRARY"):
        return None
    packages, pattern = _TENSORRT[flavour]
    return next((found for package in packages if (found := _first(package, pattern))), None)


def _is_set(variable: str) -> bool:
    """Whether the user names the library: the runtime reads the variable itself."""
    return bool(os.environ.get(variable))


def _first(package: str, pattern: str) -> Path | None:
    return next((path for folder in _folders(package) for path in sorted(folder.glob(pattern))), None)


def _folders(package: str) -> Iterator[Path]:
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a module that somebody put into sys.modules by hand has no specification
        return
    yield from map(Path, (found.submodule_search_locations or ()) if found else ())
