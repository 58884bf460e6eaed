from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest


@dataclass(frozen=True)
class Images:
    images: npt.NDArray[np.float32]


class ArraySamples:
    """Samples out of one array: the smallest thing that calibration accepts."""

    def __init__(self, images: npt.NDArray[np.float32], *, known: bool = True) -> None:
        self._images = images
        self.count: int | None = len(images) if known else None
        self.passes = 0

    def batches(self, batch_size: int) -> Iterator[Images]:
        self.passes += 1
        for start in range(0, len(self._images), batch_size):
            yield Images(self._images[start : start + batch_size])

    def sha256(self) -> str:
        return hashlib.sha256(self._images.tobytes()).hexdigest()


@pytest.fixture
def make_samples() -> Callable[..., ArraySamples]:
    def make(count: int = 24, size: int = 16, *, seed: int = 0, known: bool = True) -> ArraySamples:
        rng = np.random.default_rng(seed)
        # Smooth images, as photographs are: noise with a random mean a channel.
        mean = rng.normal(size=(count, 3, 1, 1))
        return ArraySamples((mean + 0.5 * rng.normal(size=(count, 3, size, size))).astype(np.float32), known=known)

    return make
