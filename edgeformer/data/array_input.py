"""An input that is no image: nothing prepares what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.data.preprocessing import Preprocessing
from edgeformer.errors import InputError

__all__ = ["ArrayInput", "Preparation", "sample_rank"]


@dataclass(frozen=True)
class ArrayInput:
    """Arrays of floats of one shape, which are taken as they are.

    Attributes:
        shape: of one sample, without the batch.
    """

    shape: tuple[int, ...]

    def __call__(self, sample: NDArray[Any]) -> NDArray[np.float32]:
        """One sample as float32.

        Raises:
            InputError: it has another shape or type, or values that are not finite.
        """
        if sample.shape != self.shape or not np.issubdtype(sample.dtype, np.floating):
            raise InputError(
                "EF410",
                f"a sample has type {sample.dtype} and shape {list(sample.shape)}; the model's input is no image, and "
                f"takes float32 {['N', *self.shape]}, as they are",
            )
        with np.errstate(over="ignore"):  # what overflows is infinite below
            result = sample.astype(np.float32)
        if not np.isfinite(result).all():
            raise InputError("EF411", "an array holds NaN, infinity or a value beyond float32")
        return result

    def to_dict(self) -> dict[str, Any]:
        """What decides how samples become inputs, as JSON can hold it."""
        return {"shape": list(self.shape)}


Preparation = Preprocessing | ArrayInput
"""How a sample becomes an input."""


def sample_rank(preparation: Preparation) -> int:
    """Axes of one sample at most."""
    return len(preparation.shape) if isinstance(preparation, ArrayInput) else 3
