"""What verification runs on: batches of images, labelled or not."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeformer.errors import InputError
from edgeformer.runtime.session import Array, Session

__all__ = ["BatchLike", "LabelledImages", "as_batch", "input_name"]


class LabelledImages(Protocol):
    """Images with or without labels, such as ``edgeformer.data.Batch``."""

    @property
    def images(self) -> npt.NDArray[Any]:
        """float32 [samples, channels, height, width]."""

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """int64 [samples], or None."""


BatchLike: TypeAlias = "Array | LabelledImages"


def as_batch(item: BatchLike) -> tuple[Array, npt.NDArray[np.int64] | None]:
    """Images and labels of a batch; a bare array has no labels."""
    if isinstance(item, np.ndarray):
        return item, None
    return item.images, item.labels


def input_name(session: Session) -> str:
    """The name of the model's only input.

    Raises:
        InputError: the model has none, or several.
    """
    if len(session.inputs) != 1:
        raise InputError(
            f"expected a model with one input, this one has {len(session.inputs)}: {', '.join(session.inputs)}"
        )
    return next(iter(session.inputs))
