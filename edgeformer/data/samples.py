"""Images and arrays as a stream of batches, whatever they come from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.data.array_input import Preparation
from edgeformer.errors import InputError

__all__ = ["Batch", "Sample", "Samples", "class_indices"]

Sample = tuple[NDArray[np.float32], "int | None"]
"""One input ``[3, height, width]`` float32, and its class index where there is one."""


def class_indices(labels: NDArray[Any], what: str) -> NDArray[np.int64]:
    """Labels of any integer type as int64, each with its own value.

    Args:
        labels: integers or unsigned integers, any shape.
        what: what messages call them.

    Raises:
        InputError: a label is below 0 or beyond int64, where it would become another one.
    """
    if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.int64).max):
        raise InputError(
            "EF412",
            f"{what} go from {labels.min()} to {labels.max()}; they must be class indices: integers, 0 or above",
        )
    return labels.astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Some samples in a row.

    Attributes:
        images: ``[N, 3, height, width]`` float32, preprocessed.
        labels: ``[N]`` int64 class indices, or None.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None


class Samples(ABC):
    """A data source that can be read again and again, in the same order, one batch in memory at a time.

    Attributes:
        name: what messages and reports call it.
        preprocessing: how samples become inputs.
        class_names: names of the classes in the order of their indices, or None if there are none.
        labelled: whether batches have labels.
        count: number of samples, or None if it is not known before all of them are read.
    """

    def __init__(
        self,
        name: str,
        preprocessing: Preparation,
        *,
        class_names: tuple[str, ...] | None,
        labelled: bool,
        count: int | None,
    ) -> None:
        self.name = name
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.labelled = labelled
        self.count = count
        self._digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError(f"the number of samples of {self.name} is not known before they are read; ask .count")
        return self.count

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield all samples, ``batch_size`` at a time; the last batch may be smaller.

        Raises:
            InputError: ``batch_size`` is below 1, a sample cannot be read, or there is none.
        """
        if batch_size < 1:
            raise InputError("EF401", f"the batch size is {batch_size}; it must be at least 1")
        return self._batches(batch_size)

    def _batches(self, batch_size: int) -> Iterator[Batch]:
        images: list[NDArray[np.float32]] = []
        labels: list[int] = []
        empty = True
        for image, label in self.samples():
            empty = False
            images.append(image)
            if label is not None:
                labels.append(label)
            if len(images) == batch_size:
                yield self._batch(images, labels)
                images, labels = [], []
        if empty:
            raise InputError("EF403", f"{self.name} holds no samples")
        if images:
            yield self._batch(images, labels)

    def _batch(self, images: list[NDArray[np.float32]], labels: list[int]) -> Batch:
        return Batch(np.stack(images), np.asarray(labels, np.int64) if self.labelled else None)

    def sha256(self) -> str:
        """SHA-256, as lower-case hex, of the samples' content, their labels and order, and the preprocessing."""
        digest = hashlib.sha256(json.dumps(self.preprocessing.to_dict(), sort_keys=True).encode())
        for part in self.content():
            # The length first: "ab" + "c" must not equal "a" + "bc".
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    @property
    def distinct(self) -> int:
        """How many different samples there are among those that were read so far."""
        return len(set(self._digests.values()))

    def _check_same(self, index: int, digest: bytes, name: str) -> None:
        """Refuse a sample that is another one than it was when it was read or hashed before.

        What is made of the samples is recorded under their hash, and reused wherever the hash is the same.
        """
        if self._digests.setdefault(index, digest) != digest:
            raise InputError("EF161", f"{name} changed while it was read: start again when nothing writes it")

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """Yield every sample, preprocessed.

        Raises:
            InputError: a sample cannot be read.
        """

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Yield what identifies the content, for the hash."""
