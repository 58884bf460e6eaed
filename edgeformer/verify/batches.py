"""What verification runs on: batches of images, labelled or not."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeformer.data.samples import class_indices
from edgeformer.errors import InputError
from edgeformer.runtime.session import Array, Session

__all__ = ["BatchLike", "LabelledImages", "Labels", "as_batch", "input_name"]

Labels: TypeAlias = npt.NDArray[np.integer[Any]]
"""Integers ``[samples, ...]``: a class per sample, or a map of classes ``[samples, height, width]``."""


class LabelledImages(Protocol):
    """Images with or without labels, such as ``edgeformer.data.Batch``."""

    @property
    def images(self) -> npt.NDArray[Any]:
        """float32 [samples, channels, height, width]."""

    @property
    def labels(self) -> Labels | None:
        """Integers [samples, ...], or None."""


BatchLike: TypeAlias = "Array | LabelledImages"


def as_batch(item: BatchLike) -> tuple[Array, Labels | None]:
    """Images and labels of a batch; a bare array has no labels.

    Raises:
        InputError: the labels are not integers, or there is not one for each image.
    """
    if isinstance(item, np.ndarray):
        return item, None
    images, labels = item.images, item.labels
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape[:1] != images.shape[:1]):
        raise InputError(
            "EF412",
            f"labels are {labels.dtype.name} {list(labels.shape)} for images {list(images.shape)}: expected integers "
            "[samples, ...], as many as there are images",
        )
    return images, None if labels is None else class_indices(labels, "labels")


def input_name(session: Session) -> str:
    """The name of the model's only input.

    Raises:
        InputError: the model has none, or several.
    """
    if len(session.inputs) != 1:
        raise InputError(
            "EF818", f"expected a model with one input, this one has {len(session.inputs)}: {', '.join(session.inputs)}"
        )
    return next(iter(session.inputs))
