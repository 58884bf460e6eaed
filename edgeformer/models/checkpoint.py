"""Loading checkpoints: weights only, and everything is checked before anything is changed."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeformer.errors import EnvironmentFault, InputError

__all__ = ["load_into", "read_state_dict"]

_LISTED = 8
"""Entries of each kind of fault that a message lists; the rest is counted."""

_TORCH_SUFFIXES = (".pth", ".pt")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file, by parameter name as the file has it.

    Raises:
        InputError: the file is missing, damaged, not a checkpoint, or holds anything but tensors.
        EnvironmentFault: safetensors is needed and not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("EF102", f"no checkpoint at {path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        found = _read_safetensors(path)
    elif suffix in _TORCH_SUFFIXES:
        found = _read_torch(path)
    else:
        raise InputError(
            "EF205",
            f"{path} ends in {suffix or 'nothing'}; a checkpoint is a .safetensors, .pth or .pt file",
        )
    if not found:
        raise InputError("EF205", f"the checkpoint {path} holds no tensors")
    wrong = [f"{name} is a {type(value).__name__}" for name, value in found.items() if not isinstance(value, Tensor)]
    wrong += [f"{name!r} is not a parameter name" for name in found if not isinstance(name, str)]
    if wrong:
        raise InputError(
            "EF205",
            f"the checkpoint {path} is not a state dict: {_some(wrong)}. It must hold tensors by parameter name, "
            "at the top or under 'model' or 'state_dict'",
        )
    return found


def load_into(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Implement ``edgeformer.models.load_checkpoint``, which documents the contract."""
    config = getattr(model, "config", None)
    given = _without_prefix(read_state_dict(path), dense=bool(getattr(config, "dense", False)))
    own = model.state_dict()
    faults = []
    for title, names in (("missing", own.keys() - given.keys()), ("not in the model", given.keys() - own.keys())):
        if names:
            faults.append(f"{len(names)} {title}: {_some(sorted(names))}")
    shared = [name for name in own if name in given]
    shapes = [
        f"{name} is {list(given[name].shape)}, the model has {list(own[name].shape)}"
        for name in shared
        if given[name].shape != own[name].shape
    ]
    if shapes:
        faults.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    types = [
        f"{name} is {given[name].dtype}, the model has {own[name].dtype}"
        for name in shared
        if given[name].dtype.is_floating_point != own[name].dtype.is_floating_point
    ]
    if types:
        faults.append(f"{len(types)} of another type: {_some(types)}")
    broken = [name for name in shared if given[name].is_floating_point() and not given[name].isfinite().all()]
    if broken:
        faults.append(f"{len(broken)} with NaN or infinity: {_some(broken)}")
    if faults:
        raise InputError(
            "EF208",
            f"the checkpoint {path} does not fit this model:\n"
            + "\n".join(f"  - {fault}" for fault in faults)
            + "\nCheck the model's name and its overrides (num_classes, regions, ...)",
        )
    model.load_state_dict(given)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        import safetensors
        from safetensors.torch import load_file
    except ImportError as error:
        raise EnvironmentFault(
            "EF601",
            "reading .safetensors needs the package safetensors: pip install 'edgeformer[export]'",
        ) from error
    try:
        return dict(load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(
            "EF206",
            f"{path} cannot be read as a safetensors file (damaged or truncated?): {error}",
        ) from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        # Training scripts save their argparse options beside the weights; a Namespace is inert.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if name is None:
            raise InputError("EF206", f"{path} cannot be read as a checkpoint (damaged or truncated?)") from error
        raise InputError(
            "EF207",
            f"{path} holds a Python object, {name.group(1)}; loading that could run code, so it is never done. Save "
            "the weights alone, where you trust the file: torch.save({'model': checkpoint['model']}, 'weights.pth')",
        ) from error
    except Exception as error:  # a damaged archive makes torch trip over anything from EOFError to RuntimeError
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            "EF206",
            f"{path} cannot be read as a checkpoint (damaged or truncated?): {reason}",
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise InputError("EF205", f"{path} holds a {type(content).__name__}; it must hold a state dict")
    return dict(content)


def _without_prefix(tensors: dict[str, Tensor], *, dense: bool) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers put before the names; see ``load_checkpoint``."""
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    backbone = {
        name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")
    }
    return backbone if dense and backbone else tensors


def _some(items: Iterable[str]) -> str:
    items = list(items)
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
