"""Running a model over samples, batch by batch, and showing chosen tensors to whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from edgeformer.errors import InputError
from edgeformer.progress import Progress
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import as_input

__all__ = ["BatchLike", "SamplesLike", "SpreadSamples", "TensorStream"]


class BatchLike(Protocol):
    """What calibration reads of a batch: ``images``, float32 ``[N, 3, H, W]``."""

    @property
    def images(self) -> npt.NDArray[np.float32]:
        """The preprocessed images."""


class SamplesLike(Protocol):
    """What calibration asks of its data; `edgeformer.data.Samples` is one."""

    @property
    def count(self) -> int | None:
        """Number of samples, or None where only reading them could tell."""

    def batches(self, batch_size: int) -> Iterator[BatchLike]:
        """All samples from the beginning, ``batch_size`` at a time."""

    def sha256(self) -> str:
        """Hash of content, order and preprocessing."""


@dataclass(frozen=True)
class _Batch:
    images: npt.NDArray[np.float32]


class SpreadSamples:
    """Some of the samples, evenly spread over all of them, which may be sorted by class.

    Where their number is not known before they are read, or is no larger than ``wanted``, all of them.

    Args:
        samples: all samples.
        wanted: how many to take at most, at least 1.
    """

    def __init__(self, samples: SamplesLike, wanted: int) -> None:
        self._samples = samples
        self._wanted = wanted
        self._total = samples.count
        self.count = None if self._total is None else min(self._total, wanted)

    def batches(self, batch_size: int) -> Iterator[BatchLike]:
        """The samples chosen, ``batch_size`` at a time."""
        if self._total is None or self._total <= self._wanted:
            yield from self._samples.batches(batch_size)
            return
        chosen: list[npt.NDArray[np.float32]] = []
        position = 0
        for batch in self._samples.batches(batch_size):
            for image in batch.images:
                # Of every total / wanted images one.
                if position * self._wanted % self._total < self._wanted:
                    chosen.append(image)
                position += 1
            while len(chosen) >= batch_size:
                yield _Batch(np.stack(chosen[:batch_size]))
                del chosen[:batch_size]
        if chosen:
            yield _Batch(np.stack(chosen))

    def sha256(self) -> str:
        """Hash of all samples."""
        return self._samples.sha256()


class TensorStream:
    """The named tensors of a model for one batch of images after another; one batch is in memory at a time.

    Args:
        model: a model with one float input ``[N, 3, H, W]``.
        tensors: names of tensors to look at, the input included.
        extra_inputs: names of the inputs that `run` takes besides the images.

    Raises:
        InputError: the model has another number of inputs, or ONNX Runtime cannot load it.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], extra_inputs: Sequence[str] = ()) -> None:
        initializers = {tensor.name for tensor in model.graph.initializer}
        inputs = [v for v in model.graph.input if v.name not in initializers and v.name not in extra_inputs]
        if len(inputs) != 1:
            names = [value.name for value in inputs]
            raise InputError(
                "EF321", f"calibration feeds images to one input, and this model has {len(inputs)}: {names}"
            )
        self.input = inputs[0].name
        self.tensors = tuple(tensors)
        # Fused nodes would, around Q/DQ, change arithmetic: what is written is what runs.
        self._session = OnnxSession(
            model, outputs=[name for name in self.tensors if name != self.input], optimization="basic", as_written=True
        )
        self._info = self._session.inputs[self.input]
        self._shape = self._info.shape

    @property
    def batch_size(self) -> int | None:
        """The batch size that the model is fixed to, or None."""
        size = self._shape[0]
        return size if isinstance(size, int) else None

    def run(self, images: npt.NDArray[np.float32], **extra: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """The tensors for one batch.

        A model with a fixed batch size gets a smaller batch filled up with repetitions of its own images.

        Args:
            images: float32 ``[N, 3, H, W]``.
            extra: the further inputs.

        Raises:
            InputError: the images do not fit the model's input.
        """
        images = as_input(self._info, images)
        fits = images.ndim == len(self._shape) and all(
            not isinstance(wanted, int) or wanted == got
            for wanted, got in zip(self._shape[1:], images.shape[1:], strict=True)
        )
        if not fits:
            raise InputError(
                "EF507",
                f"a batch of shape {list(images.shape)} does not fit the model's input {self.input!r} of shape "
                f"{list(self._shape)}: prepare the data at the model's input size",
            )
        if self.batch_size is not None and len(images) != self.batch_size:
            images = np.resize(images, (self.batch_size, *images.shape[1:]))
        found = self._session.run({self.input: images, **extra})
        if self.input in self.tensors:
            found[self.input] = images
        return found

    def over(
        self,
        samples: SamplesLike,
        batch_size: int,
        what: str,
        progress: Progress | None = None,
        limit: int | None = None,
    ) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        """Number of images and the tensors, for one batch after another, at most ``limit`` images.

        Raises:
            InputError: there are no samples, or they do not fit.
        """
        done = 0
        total = samples.count
        if limit is not None:
            total = limit if total is None else min(limit, total)
        for batch in samples.batches(self.batch_size or batch_size):
            images = batch.images if limit is None else batch.images[: limit - done]
            if not len(images):
                break
            yield len(images), self.run(images)
            done += len(images)
            if progress is not None:
                progress(what, done, total)
        if not done:
            raise InputError(
                "EF403", "there are no calibration images: give a folder, an array file or an iterator that holds some"
            )
