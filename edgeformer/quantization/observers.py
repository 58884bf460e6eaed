"""Observers: they see an activation batch by batch, keep a fixed amount of state, and give the range to quantize it
with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.graph.qdq import QMAX, representable_scale
from edgeformer.quantization.recipe import ObserverSettings

__all__ = ["ChannelObserver", "Histogram", "RangeObserver"]

_BINS = 8192
_QMAX = 127
# Ranges that the MSE search tries: from half the largest magnitude to all of it. The error is flat near its
# minimum.
_CANDIDATES = 161
_SMALLEST_SHARE = 0.5


class Histogram:
    """Counts of magnitudes in bins of equal width, for data whose range is not known beforehand.

    The covered range is a power of two. When a larger value comes it doubles, and neighbouring bins are merged: every
    count stays exact, and at least half of the range is in use.
    """

    def __init__(self, bins: int = _BINS) -> None:
        self.counts = np.zeros(bins, dtype=np.int64)
        self.limit = 0.0
        self.largest = 0.0

    def update(self, magnitudes: npt.NDArray[Any]) -> None:
        """Count non-negative finite values, any shape."""
        largest = float(magnitudes.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if largest > 0:
            self._grow(largest)
        if self.limit == 0:
            self.counts[0] += magnitudes.size
            return
        position = (magnitudes.ravel() * (self.counts.size / self.limit)).astype(np.int64)
        np.minimum(position, self.counts.size - 1, out=position)
        self.counts += np.bincount(position, minlength=self.counts.size)

    def _grow(self, largest: float) -> None:
        if self.limit == 0:
            self.limit = float(2.0 ** np.ceil(np.log2(largest)))
        while largest > self.limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2

    def percentile(self, percent: float) -> float:
        """The magnitude that ``percent`` of all values do not exceed, interpolated within its bin.

        It differs from the exact percentile by at most one bin, ``limit / bins``.
        """
        total = int(self.counts.sum())
        if total == 0 or self.limit == 0:
            return 0.0
        cumulative = np.cumsum(self.counts)
        wanted = total * percent / 100
        position = int(np.searchsorted(cumulative, wanted))
        below = int(cumulative[position - 1]) if position else 0
        inside = (wanted - below) / int(self.counts[position])
        return min((position + inside) * self.limit / self.counts.size, self.largest)

    def mse_range(self) -> float:
        """The range amax with the smallest mean square error of symmetric INT8 quantization.

        Every value counts as the centre of its bin; there are some sixty bins to a quantization step. Tried are the
        scales that Q/DQ can have (`representable_scale`): where much of the data is one value, such as a background,
        a scale 0.5 % off moves it from a step to the border between two, where the slightest noise flips it.
        """
        if self.limit == 0:
            return 0.0
        used = self.counts > 0
        centres = ((np.arange(self.counts.size) + 0.5) * self.limit / self.counts.size)[used]
        counts = self.counts[used].astype(np.float64)
        shares = np.linspace(_SMALLEST_SHARE, 1.0, _CANDIDATES)
        best, smallest = self.largest, np.inf
        for step in np.unique(representable_scale(shares * self.largest / QMAX)).astype(np.float64):
            error = centres - np.minimum(np.rint(centres / step), QMAX) * step
            total = float(counts @ error**2)
            if total < smallest:
                best, smallest = step * QMAX, total
        return float(best)


class RangeObserver:
    """The range of one tensor as `ObserverSettings` asks for it."""

    def __init__(self, settings: ObserverSettings) -> None:
        self._settings = settings
        self._histogram = Histogram()

    def update(self, values: npt.NDArray[Any]) -> None:
        """See one batch, any shape, finite."""
        if self._settings.kind == "min_max":
            largest = float(np.abs(values).max(initial=0.0))
            self._histogram.largest = max(self._histogram.largest, largest)
        else:
            self._histogram.update(np.abs(values))

    def amax(self) -> float:
        """The magnitude that becomes 127."""
        if self._settings.kind == "percentile":
            return self._histogram.percentile(self._settings.percentile)
        if self._settings.kind == "mse":
            return self._histogram.mse_range()
        return self._histogram.largest


class ChannelObserver:
    """Smallest and largest value of each channel of one tensor.

    Args:
        axis: the channel axis.

    Attributes:
        minimum: float32 ``[channels]``; None before the first batch.
        maximum: the same.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self.minimum: npt.NDArray[np.float32] | None = None
        self.maximum: npt.NDArray[np.float32] | None = None

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """See one batch, finite."""
        rows = np.moveaxis(values, self._axis, -1).reshape(-1, values.shape[self._axis])
        low, high = rows.min(axis=0), rows.max(axis=0)
        self.minimum = low if self.minimum is None else np.minimum(self.minimum, low)
        self.maximum = high if self.maximum is None else np.maximum(self.maximum, high)
