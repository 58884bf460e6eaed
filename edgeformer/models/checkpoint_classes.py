"""Names of classes that a training script saved beside the weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeformer.data.class_names import labels_of
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.text import parse_json, printable, shortened

__all__ = ["find_labels"]

log = logging.getLogger(__name__)

# What timm, torchvision's ImageFolder, Transformers, mmpretrain and people's own scripts call them.
_KEYS = ("class_names", "classes", "CLASSES", "id2label", "label2id", "idx_to_class", "class_to_idx")
# Where they are, besides the top: mmpretrain, Lightning, Transformers.
_PLACES = ("meta", "dataset_meta", "hyper_parameters", "config")


def find_labels(path: Path, count: int) -> tuple[str, ...] | None:
    """Implement ``edgeformer.models.checkpoint_labels``, which documents the contract."""
    content = _safetensors_metadata(path) if path.suffix.lower() == ".safetensors" else _torch_content(path)
    for where, value in _candidates(content):
        try:
            labels = labels_of(value)
        except ValueError as error:
            log.warning("%s: %s names no classes: %s", printable(str(path)), where, printable(shortened(error, 200)))
            continue
        if len(labels) != count:
            raise InputError(
                "EF843",
                f"{path} names {len(labels)} classes in {where!r}, and the model has {count}: give the names with "
                "--labels FILE, or the right number with --set num_classes=N",
            )
        return labels
    return None


def _candidates(content: Any) -> Iterator[tuple[str, Any]]:
    """What may be names of classes, with its place: a number under such a key is none, and left aside."""
    if not isinstance(content, Mapping):
        return
    for prefix, place in (("", content), *((f"{name}.", content.get(name)) for name in _PLACES)):
        if not isinstance(place, Mapping):
            continue
        for key in _KEYS:
            value = place.get(key)
            if isinstance(value, (list, tuple, Mapping)) and value:
                yield f"{prefix}{key}", value


def _torch_content(path: Path) -> Any:
    # It imports torch, which takes longer than all of a build whose stages are reused.
    from edgeformer.models.checkpoint_files import TORCH_SUFFIXES, read_torch

    return read_torch(path) if path.suffix.lower() in TORCH_SUFFIXES else None


def _safetensors_metadata(path: Path) -> dict[str, Any]:
    """The header's own entries, which are texts: those that are JSON, read."""
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", "reading .safetensors needs the package safetensors: pip install 'edgeformer[export]'"
        ) from error
    try:
        with safe_open(path, framework="np") as file:
            texts = dict(file.metadata() or {})
    except Exception:  # damaged: loading the weights says how
        return {}
    found = {}
    for key, text in texts.items():
        try:
            found[key] = parse_json(text)
        except ValueError:
            continue
    return found
