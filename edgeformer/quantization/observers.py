"""Observers: they see an activation batch by batch, keep a fixed amount of state, and give the range to quantize it
with.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.graph.qdq import QMAX, representable_scale
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.records.quantization import ActivationHistogram

__all__ = ["ChannelObserver", "Histogram", "RangeObserver", "largest_magnitude"]

_BINS = 8192
# Of the histogram that people look at; half of them are in use at least.
_SHOWN_BINS = 32
# Ranges that the MSE search tries: from half the largest magnitude to all of it. The error is flat near its
# minimum.
_CANDIDATES = 161
_SMALLEST_SHARE = 0.5


# Values that are counted at a time: 256 KiB in FP32.
_BLOCK = 65536


def largest_magnitude(values: npt.NDArray[Any]) -> float:
    """The largest magnitude among values of any shape, 0 for none; NaN where one is NaN."""
    return float(np.maximum(values.max(initial=0.0), -values.min(initial=0.0)))


class Histogram:
    """Counts of magnitudes in bins of equal width, for data whose range is not known beforehand.

    The covered range is a power of two above all values. When a larger value comes it doubles, and neighbouring bins
    are merged: every count stays exact whatever the order of the data, and at least half of the range is in use.
    """

    def __init__(self, bins: int = _BINS) -> None:
        self.counts = np.zeros(bins, dtype=np.int64)
        self.limit = 0.0
        self.largest = 0.0

    def update(self, values: npt.NDArray[Any], largest: float | None = None) -> None:
        """Count the magnitudes of finite values, any shape; ``largest`` is the largest of them, where it is known."""
        largest = largest_magnitude(values) if largest is None else largest
        self.largest = max(self.largest, largest)
        if largest > 0:
            self._grow(largest)
        if self.limit == 0:
            self.counts[0] += values.size
            return
        flat = values.reshape(-1)
        # In blocks that stay in the processor's cache on their way through four operations.
        for start in range(0, flat.size, _BLOCK):
            magnitudes = np.abs(flat[start : start + _BLOCK])
            position = (magnitudes * (self.counts.size / self.limit)).astype(np.int64)
            self.counts += np.bincount(position, minlength=self.counts.size)

    def _grow(self, largest: float) -> None:
        # Above the largest value and not at it: a value at the end of the range would count in the last bin, and once
        # the range has doubled in the one behind it.
        self._widen(math.ldexp(1.0, math.frexp(largest)[1]))

    def _widen(self, limit: float) -> None:
        """Cover at least ``limit``, a power of two."""
        self.limit = self.limit or limit
        while limit > self.limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2

    def merge(self, other: Histogram) -> None:
        """Count what ``other``, of as many bins, has counted, as if its values had been given to this one."""
        if other.limit:
            self._widen(other.limit)
            wider = copy(other)
            wider._widen(self.limit)
            other = wider
        self.counts = self.counts + other.counts
        self.largest = max(self.largest, other.largest)

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

    def shown(self, amax: float) -> ActivationHistogram:
        """The histogram in a few bins, each the sum of as many of these.

        Args:
            amax: the magnitude that becomes 127; what is more than half a step beyond it counts as clipped.
        """
        counts = self.counts.reshape(_SHOWN_BINS, -1).sum(axis=1)
        used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
        total = int(counts.sum())
        bins = self.counts.size
        end = amax * (QMAX + 0.5) / QMAX
        first = min(int(np.ceil(end * bins / self.limit)), bins) if self.limit else bins
        return ActivationHistogram(
            bin_width=self.limit / _SHOWN_BINS,
            counts=tuple(map(int, counts[:used])),
            largest=self.largest,
            clipped=int(self.counts[first:].sum()) / total if total else 0.0,
        )


class RangeObserver:
    """The range of one tensor as `ObserverSettings` asks for it."""

    def __init__(self, settings: ObserverSettings) -> None:
        self._settings = settings
        self._histogram = Histogram()

    def update(self, values: npt.NDArray[Any], largest: float | None = None) -> None:
        """See one batch, any shape, finite; ``largest`` is the largest magnitude in it, where it is known."""
        largest = largest_magnitude(values) if largest is None else largest
        if self._settings.kind == "min_max":
            self._histogram.largest = max(self._histogram.largest, largest)
        else:
            self._histogram.update(values, largest)

    def state(self) -> tuple[npt.NDArray[np.int64], float, float]:
        """What was seen, to be sent elsewhere: counts, the range that they cover, and the largest magnitude."""
        return self._histogram.counts, self._histogram.limit, self._histogram.largest

    def merge(self, state: tuple[npt.NDArray[np.int64], float, float]) -> None:
        """Take in what another observer with these settings has seen (`state`), as if this one had seen it itself."""
        other = Histogram()
        other.counts, other.limit, other.largest = state
        self._histogram.merge(other)

    def amax(self) -> float:
        """The magnitude that becomes 127."""
        if self._settings.kind == "percentile":
            return self._histogram.percentile(self._settings.percentile)
        if self._settings.kind == "mse":
            return self._histogram.mse_range()
        return self._histogram.largest

    def shown(self, amax: float) -> ActivationHistogram | None:
        """The histogram for people (`Histogram.shown`); None where the observer keeps the largest magnitude alone."""
        return None if self._settings.kind == "min_max" else self._histogram.shown(amax)


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
        """See one batch."""
        others = tuple(axis for axis in range(values.ndim) if axis != self._axis % values.ndim)
        low, high = values.min(axis=others), values.max(axis=others)
        self.minimum = low if self.minimum is None else np.minimum(self.minimum, low)
        self.maximum = high if self.maximum is None else np.maximum(self.maximum, high)

    @property
    def finite(self) -> bool:
        """Whether no value was NaN or infinite so far."""
        ends = [values for values in (self.minimum, self.maximum) if values is not None]
        return all(bool(np.isfinite(values).all()) for values in ends)
