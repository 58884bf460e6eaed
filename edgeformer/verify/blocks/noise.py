"""How far a result in a block is from the reference's, and how far rounding alone would bring it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgeformer.records.terms import Precision
from edgeformer.runtime import Array
from edgeformer.verify.gates import BLOCK_SLICE, UNIT_ROUNDOFF

__all__ = ["Noise", "gap_of_picks"]

_Sums = npt.NDArray[np.float64]


class Noise:
    """The figures of one result, summed up over runs that are alike in size."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._largest = 0.0
        self._largest_reference = 0.0
        # Sums of squares of the difference, of what is expected of it, and of the reference: of all and along axes.
        self._sums: dict[str, tuple[_Sums, _Sums, _Sums]] = {}

    def add(self, reference: Array, candidate: Array, rounded: Array | None = None) -> None:
        """Add a run.

        Args:
            reference: any shape, of a float type.
            candidate: the same tensor of the form that is judged. Of another shape, nothing else is looked at.
            rounded: the same tensor of the rounded reference; None where nothing is rounded.
        """
        if reference.shape != candidate.shape:
            self.shapes = (reference.shape, candidate.shape)
            return
        want, have = reference.astype(np.float64), candidate.astype(np.float64)
        with np.errstate(invalid="ignore"):
            # Masks are infinite in both.
            difference = np.where(want == have, 0.0, have - want)
            explained = np.zeros_like(want) if rounded is None else rounded.astype(np.float64) - want
        difference[~np.isfinite(difference)] = np.inf
        explained[~np.isfinite(explained)] = 0.0
        magnitude = np.where(np.isfinite(want), np.abs(want), 0.0)
        self._largest = max(self._largest, float(np.abs(difference).max(initial=0.0)))
        self._largest_reference = max(self._largest_reference, float(magnitude.max(initial=0.0)))
        squares = (difference**2, explained**2, magnitude**2)
        self._add("all", tuple(np.asarray([one.sum()]) for one in squares))
        for axis in {1, want.ndim - 1} if want.ndim > 2 else {want.ndim - 1}:
            if axis < 1 or want.size // max(want.shape[axis], 1) < BLOCK_SLICE:
                continue
            others = tuple(i for i in range(want.ndim) if i != axis)
            self._add(f"axis {axis}", tuple(one.sum(axis=others) for one in squares))

    def _add(self, key: str, sums: tuple[_Sums, ...]) -> None:
        first, second, third = sums
        if key in self._sums:
            before = self._sums[key]
            first, second, third = before[0] + first, before[1] + second, before[2] + third
        self._sums[key] = (first, second, third)

    @property
    def any(self) -> bool:
        """Whether anything was compared."""
        return bool(self._sums)

    def metric(self, precision: Precision) -> str:
        """The name of the figure that is judged, as the gates have it."""
        return "max_abs_relative" if precision == "fp32" else "noise_ratio"

    def figure(self, precision: Precision) -> float:
        """The figure that is judged."""
        return self.max_abs_relative if precision == "fp32" else self.ratio(precision)

    @property
    def max_abs_relative(self) -> float:
        """Largest difference over the largest magnitude of the reference; 0 where both are 0."""
        if self._largest == 0.0:
            return 0.0
        return self._largest / self._largest_reference if self._largest_reference else math.inf

    def ratio(self, precision: Precision) -> float:
        """Power of the difference over the power expected of it: of the whole, or of the channel where it is largest.

        A channel of which less is expected than of the others on average is held against that average. Beside what is
        expected there is always the rounding of the result itself, by the precision's unit roundoff.

        Args:
            precision: ``fp16``, ``bf16`` or ``int8``.
        """
        found = 0.0
        for difference, explained, reference in self._sums.values():
            floor = UNIT_ROUNDOFF[precision] ** 2 * reference.mean()
            allowed = np.maximum(explained, explained.mean()) + floor
            if difference.any():
                with np.errstate(divide="ignore"):
                    found = max(found, float(np.where(difference > 0, difference / allowed, 0.0).max()))
        return found


def gap_of_picks(logits: Array, reference: Array, candidate: Array) -> tuple[float, int, int]:
    """How far apart, by the reference's logits, the regions lie that two graphs pick instead of each other.

    Args:
        logits: float ``[..., regions]``, the reference's.
        reference: int ``[..., topk]``, what it picks.
        candidate: the same of the other graph.

    Returns:
        The largest distance in a row, 0 where all rows pick the same; how many rows do; and the number of rows.
    """
    topk = reference.shape[-1]
    rows = logits.reshape(-1, logits.shape[-1]).astype(np.float64)
    ours, theirs = np.sort(reference.reshape(-1, topk), axis=1), np.sort(candidate.reshape(-1, topk), axis=1)
    differing = np.flatnonzero((ours != theirs).any(axis=1))
    gap = 0.0
    for row in differing:
        lost = np.setdiff1d(ours[row], theirs[row])
        gained = np.setdiff1d(theirs[row], ours[row])
        if len(lost) and len(gained):
            gap = max(gap, float(rows[row, lost].max() - rows[row, gained].min()))
        else:
            # A region that is picked twice is no choice between two.
            gap = math.inf
    return gap, len(ours) - len(differing), len(ours)
