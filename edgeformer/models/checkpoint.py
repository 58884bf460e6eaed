"""Loading checkpoints: weights only, and everything is checked before anything is changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeformer.errors import InputError
from edgeformer.models.checkpoint_files import TORCH_SUFFIXES, read_safetensors, read_torch
from edgeformer.models.checkpoint_layout import choose_weights, is_counter, without_wrappers
from edgeformer.text import printable, shortened

__all__ = ["load_into", "read_state_dict"]

_LISTED = 8
"""Entries of each kind of fault that a message lists; the rest is counted."""

log = logging.getLogger(__name__)


def read_state_dict(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file, by parameter name as the file has it.

    Args:
        path: the file.
        key: which weights to take where the file holds several; None takes the raw ones.

    Raises:
        InputError: the file is missing, damaged, not a checkpoint, holds objects, or tensors that are not dense.
        EnvironmentFault: safetensors is needed and not installed.
    """
    return _read(Path(path), key)[0]


def _read(path: Path, key: str | None) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, and the key that they were taken from."""
    if not path.is_file():
        raise InputError("EF102", f"no checkpoint at {path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        content = read_safetensors(path)
    elif suffix in TORCH_SUFFIXES:
        content = read_torch(path)
    else:
        raise InputError(
            "EF205",
            f"{path} ends in {suffix or 'nothing'}; a checkpoint is a .safetensors, .pth or .pt file (or "
            f"{', '.join(TORCH_SUFFIXES[2:])})",
        )
    weights, taken = choose_weights(content, path, key)
    for name, value in weights.items():
        _check_dense(name, value, path)
    return weights, taken


def load_into(model: nn.Module, path: str | os.PathLike[str], key: str | None = None) -> str | None:
    """Implement ``edgeformer.models.load_checkpoint``, which documents the contract."""
    config = getattr(model, "config", None)
    weights, taken = _read(Path(path), key)
    own = model.state_dict()
    given, prefix, beside = without_wrappers(weights, own)
    if prefix and beside and not getattr(config, "dense", False):
        left_out = f"{path}: left out {len(beside)} tensors that are not below {prefix!r}: {_some(beside)}"
        log.warning("%s", printable(left_out))
    # Counters of training decide nothing: an older PyTorch wrote none, and those of a half checkpoint are rounded.
    given = {**given, **{name: own[name] for name in own if is_counter(name)}}
    faults = _misfits(given, own)
    # Those of the model's shape only: a tensor that claims another may not fit into memory.
    fitting = [name for name in own if name in given and given[name].shape == own[name].shape]
    broken = [name for name in fitting if given[name].is_floating_point() and not _is_finite(given[name])]
    if broken and not faults:
        raise InputError(
            "EF261",
            f"the checkpoint {path} has NaN or infinity in {len(broken)} of {len(own)} tensors: {_some(broken)}. The "
            "training diverged or the file is damaged: take an earlier checkpoint",
        )
    if broken:
        faults.append(f"{len(broken)} with NaN or infinity: {_some(broken)}")
    if faults:
        off = f" (the prefix {prefix!r} was taken off)" if prefix else ""
        raise InputError(
            "EF208",
            f"the checkpoint {path} does not fit this model{off}:\n"
            + "\n".join(f"  - {fault}" for fault in faults)
            + "\nCheck the model's name and its overrides (num_classes, regions, ...)",
        )
    model.load_state_dict(given)
    return taken


def _misfits(given: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """All that does not fit, a line for each kind."""
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
    return faults


def _check_dense(name: str, value: Tensor, path: Path) -> None:
    if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
        kind = "quantized" if value.is_quantized else "without values" if value.is_meta else "not dense"
        raise InputError(
            "EF262",
            f"{shortened(name)} in the checkpoint {path} is {kind} ({value.layout}): save plain tensors, such as "
            "tensor.to_dense()",
        )


def _is_finite(value: Tensor) -> bool:
    # float32, since not every 8-bit type knows isfinite.
    return bool(value.float().isfinite().all())


def _some(items: Iterable[str]) -> str:
    items = [shortened(item, 200) for item in items]
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
