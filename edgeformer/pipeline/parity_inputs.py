"""What the forms of a model are compared on: labelled images, calibration images, or noise, best first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.data import ArrayInput, Preparation, Samples

__all__ = ["BATCH", "ParityInputs"]

BATCH = 8
# Unlabelled images: enough for top-1 agreement to mean something, few enough for the largest model on a small machine.
_UNLABELLED_IMAGES = 32
_NOISE_IMAGES = 8


@dataclass(frozen=True)
class ParityInputs:
    """Images to compare on; noise only where the user gave no images at all.

    Attributes:
        eval_data: labelled images, all of which are used.
        data: calibration images, used where there are no labelled ones. Their labels are left aside: accuracy on them
            would flatter the quantized model.
        preprocessing: gives the noise its size and its range.
    """

    eval_data: Samples | None
    data: Samples | None
    preprocessing: Preparation

    def batches(self) -> Iterable[Any]:
        """Batches with labels, or bare float32 ``[n, 3, height, width]``; the same ones at each call."""
        if self.eval_data is not None:
            return self.eval_data.batches(BATCH)
        if self.data is not None:
            return _first(self.data.batches(BATCH), _UNLABELLED_IMAGES)
        return [self.noise(_NOISE_IMAGES)]

    def images(self, count: int) -> npt.NDArray[np.float32]:
        """At most the first ``count`` images, ``[n, 3, height, width]`` float32."""
        return np.concatenate(list(_first(self.batches(), count)))

    def noise(self, count: int) -> npt.NDArray[np.float32]:
        """``count`` random inputs, normally distributed as normalized images are, or as pixels that are only scaled
        or left as they are; the same each time.
        """
        rng = np.random.default_rng(0)
        if isinstance(self.preprocessing, ArrayInput):
            return rng.standard_normal((count, *self.preprocessing.shape), np.float32)
        size = (self.preprocessing.height, self.preprocessing.width)
        noise = rng.standard_normal((count, 3, *size), np.float32)
        normalization = self.preprocessing.normalization
        if normalization == "mean_std":
            return noise
        np.rint(np.clip(127.5 + 64 * noise, 0, 255), out=noise)
        return noise if normalization == "none" else np.divide(noise, np.float32(255))

    @property
    def count(self) -> int | None:
        """How many there are; ``None`` where only reading them all could tell."""
        if self.eval_data is not None:
            return self.eval_data.count
        if self.data is not None:
            return None if self.data.count is None else min(self.data.count, _UNLABELLED_IMAGES)
        return _NOISE_IMAGES

    def describe(self) -> str:
        """What they are, for people."""
        if self.eval_data is not None:
            return f"labelled images of {self.eval_data.name}"
        if self.data is not None:
            return f"at most {_UNLABELLED_IMAGES} calibration images of {self.data.name}, without their labels"
        return f"{_NOISE_IMAGES} images of normal random noise (no images were given)"

    def key(self) -> list[str | None]:
        """Hashes of what the figures depend on."""
        return [None if samples is None else samples.sha256() for samples in (self.eval_data, self.data)]


def _first(batches: Iterable[Any], count: int) -> Iterable[npt.NDArray[np.float32]]:
    """The images of the first ``count`` samples, batch by batch, without labels."""
    left = count
    for item in batches:
        images = getattr(item, "images", item)[:left]
        yield images
        left -= len(images)
        if left <= 0:
            return
