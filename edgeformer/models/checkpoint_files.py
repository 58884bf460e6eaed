"""The two formats of checkpoints, read so that nothing in them is executed and no size in them is believed."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.text import shortened

__all__ = ["TORCH_SUFFIXES", "read_safetensors", "read_torch"]

# timm saves .pth.tar, Lightning .ckpt, Transformers .bin, PyTorch's tutorials .tar; all are what torch.save writes.
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".pyt", ".th")


class _NumpyValue:
    """Stands in for NumPy's scalars and arrays in a pickle: they lie beside the weights, and are thrown away.

    NumPy's own functions would have to be trusted with whatever sizes, types and bytes the pickle hands them.
    """

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _numpy_value(*_arguments: Any) -> _NumpyValue:
    return _NumpyValue()


# Training scripts save their argparse options beside the weights, and figures such as the best accuracy.
_INERT: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    argparse.Namespace,
    (_numpy_value, "numpy.core.multiarray.scalar"),
    (_numpy_value, "numpy._core.multiarray.scalar"),
    (_numpy_value, "numpy.core.multiarray._reconstruct"),
    (_numpy_value, "numpy._core.multiarray._reconstruct"),
    (_numpy_value, "numpy._core.numeric._frombuffer"),
    (_numpy_value, "numpy.core.numeric._frombuffer"),
    (_NumpyValue, "numpy.dtype"),
    (_NumpyValue, "numpy.ndarray"),
)


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors file by name.

    Raises:
        InputError: it cannot be read.
        EnvironmentFault: safetensors is not installed.
    """
    try:
        import safetensors  # noqa: F401  # says first that it is not there
        from safetensors.torch import load_file
    except ImportError as error:
        raise EnvironmentFault(
            "EF601",
            "reading .safetensors needs the package safetensors: pip install 'edgeformer[export]'",
        ) from error
    try:
        return dict(load_file(path))
    except Exception as error:  # a type that torch does not have is a KeyError, a damaged header one of its own
        raise InputError(
            "EF206", f"{path} cannot be read as a safetensors file (damaged or truncated?): {_reason(error)}"
        ) from error


def read_torch(path: Path) -> Any:
    """What `torch.save` put into a file.

    Raises:
        InputError: it cannot be read, or holds objects that would have to be executed to be made.
    """
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(list(_INERT)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if name is None:
            raise InputError("EF206", f"{path} cannot be read as a checkpoint (damaged or truncated?)") from error
        raise InputError(
            "EF207",
            f"{path} holds a Python object, {shortened(name.group(1))}; loading that could run code, so it is never "
            "done. Save the weights alone, where you trust the file: torch.save({'model': checkpoint['model']}, "
            "'weights.pth')",
        ) from error
    except Exception as error:  # a damaged archive makes torch trip over anything from EOFError to RuntimeError
        raise InputError(
            "EF206", f"{path} cannot be read as a checkpoint (damaged or truncated?): {_reason(error)}"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse an archive whose parts unpack to more than the file holds: torch makes room for what they say."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(info.file_size for info in archive.infolist())
    except Exception:  # the older format, or damaged: torch says what is wrong
        return
    size = path.stat().st_size
    if declared > size:
        raise InputError(
            "EF206",
            f"{path} has {size} bytes and would unpack to {declared}; torch.save does not compress: save it again",
        )


def _reason(error: Exception) -> str:
    return shortened(str(error).partition("\n")[0] or type(error).__name__, 200)
