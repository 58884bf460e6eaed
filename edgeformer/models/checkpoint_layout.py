"""Where the weights are in what a training script saved: containers, averages beside them, wrappers' prefixes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeformer.errors import InputError
from edgeformer.text import printable, shortened

__all__ = ["choose_weights", "is_counter", "without_wrappers"]

log = logging.getLogger(__name__)

# Keys under which training scripts save weights, the first one found is taken; then those of their moving average.
_RAW = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "weights", "params")
_AVERAGED = (
    "model_ema",
    "state_dict_ema",
    "ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "params_ema",
    "averaged_model",
    "model_averaged",
)
# What wrappers put before the names: DataParallel and AveragedModel, torch.compile, Lightning, mmseg and mmdet.
_RAW_PREFIXES = frozenset(
    {"module", "_orig_mod", "model", "backbone", "net", "network", "_forward_module", "online_model"}
)
_AVERAGED_PREFIXES = frozenset({"ema", "model_ema", "ema_model", "ema_net", "averaged_model"})
# Counters that wrappers save among the weights.
_COUNTERS = frozenset({"n_averaged", "initted", "step", "num_updates", "decay"})
_DEEPEST = 4
_LISTED = 12


def is_counter(name: str) -> bool:
    """Whether a tensor of the model only counts batches."""
    return name == "num_batches_tracked" or name.endswith(".num_batches_tracked")


def choose_weights(content: Any, path: Path, key: str | None) -> tuple[dict[str, Tensor], str | None]:
    """The weights in a checkpoint, and the key under which they were; None where they are at the top.

    Where it holds several sets the raw weights are taken, not their moving average, and a warning names the others.

    Args:
        content: what the file holds.
        path: the file, for messages.
        key: take what is under this key (``a.b`` is ``b`` in ``a``), or the tensors whose names begin with it.

    Raises:
        InputError: there are no weights, or none under ``key``.
    """
    if not isinstance(content, Mapping):
        raise InputError("EF205", f"{path} holds a {type(content).__name__}; it must hold a state dict")
    if key is not None:
        return _under(content, key, path), key
    sets = dict(_sets(content, ()))
    names = list(sets)
    if len(names) > 1:
        log.warning(
            "%s holds %d sets of weights (%s): %r is taken; --checkpoint-key KEY takes another",
            printable(str(path)),
            len(names),
            printable(", ".join(names)),
            names[0],
        )
    return _tensors(sets[names[0]], path), names[0] or None


def _sets(content: Mapping[Any, Any], place: tuple[str, ...]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The sets of weights by key, raw ones first; the mapping itself where it holds none under a known key."""
    below = [key for key in (*_RAW, *_AVERAGED) if isinstance(content.get(key), Mapping)]
    below = [key for key in below if content[key]] or below[:1]
    if not below or len(place) == _DEEPEST:
        yield ".".join(place), content
        return
    # Raw weights anywhere come before any average.
    for key in below:
        yield from _sets(content[key], (*place, key))


def _under(content: Mapping[Any, Any], key: str, path: Path) -> dict[str, Tensor]:
    found: Any = content
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, Mapping):
        ((_, inner), *_rest) = _sets(found, ())
        return _tensors(inner, path)
    # Not a key of its own: perhaps what wrappers put before the names of one model of several.
    start = f"{key.rstrip('.')}."
    for _, weights in _sets(content, ()):
        below = {name.removeprefix(start): value for name, value in weights.items() if str(name).startswith(start)}
        if below:
            return _tensors(below, path)
    known = [str(name) for name, value in content.items() if isinstance(value, Mapping)]
    raise InputError(
        "EF263", f"the checkpoint {path} has no weights under {shortened(key)!r}; there are: {_some(known) or 'none'}"
    )


def _tensors(found: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a set; plain values among them, such as an epoch, are no parameters."""
    if not found:
        raise InputError("EF205", f"the checkpoint {path} holds no tensors")
    wrong = [f"{name!r} is not a parameter name" for name in found if not isinstance(name, str)]
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        wrong += [f"{shortened(name)} is a {type(value).__name__}" for name, value in found.items()]
    if wrong:
        raise InputError(
            "EF205",
            f"the checkpoint {path} is not a state dict: {_some(wrong)}. It must hold tensors by parameter name, at "
            "the top or under 'model' or 'state_dict'; --checkpoint-key KEY names another place",
        )
    return tensors


def without_wrappers(tensors: Mapping[str, Tensor], own: Iterable[str]) -> tuple[dict[str, Tensor], str, list[str]]:
    """Tensors by the model's own names: the prefix that wrappers put before them is taken off.

    Args:
        tensors: as the file has them.
        own: the names of the model.

    Returns:
        The tensors below the prefix, the prefix (it ends in a dot, or is empty), and the names that were not below it.
    """
    wanted = {name for name in own if not is_counter(name)}
    prefixes = {""}
    for name in tensors:
        parts = name.split(".")
        for end in range(1, min(len(parts), 1 + _DEEPEST)):
            if parts[end - 1] not in _RAW_PREFIXES and parts[end - 1] not in _AVERAGED_PREFIXES:
                break
            prefixes.add(".".join(parts[:end]) + ".")
    # The prefix under which most of the model is; then the raw weights before an average, and the shortest.
    fit = {prefix: sum(f"{prefix}{name}" in tensors for name in wanted) for prefix in prefixes}
    best = min(prefixes, key=lambda prefix: (-fit[prefix], _is_averaged(prefix), len(prefix), prefix))
    alike = sorted(prefix for prefix in prefixes if prefix != best and wanted and fit[prefix] == fit[best] > 0)
    if alike:
        log.warning(
            "the checkpoint holds several sets of weights: %r is taken, not %s; --checkpoint-key takes another",
            best,
            ", ".join(map(repr, alike)),
        )
    if not fit[best]:
        best = ""
    given = {name.removeprefix(best): value for name, value in tensors.items() if name.startswith(best)}
    beside = [name for name in tensors if not name.startswith(best) and not _is_wrappers(name)]
    if not best:
        given = {name: value for name, value in given.items() if name in wanted or not _is_wrappers(name)}
    return given, best, [name for name in beside if not any(name.startswith(prefix) for prefix in alike)]


def _is_averaged(prefix: str) -> bool:
    return not _AVERAGED_PREFIXES.isdisjoint(prefix.split("."))


def _is_wrappers(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _some(items: list[str]) -> str:
    items = [shortened(item) for item in items]
    return ", ".join(items[:_LISTED]) + (f", and {len(items) - _LISTED} more" if len(items) > _LISTED else "")
