"""How far one model's outputs are from another's: the figures that gates judge.

Everything is summed up batch by batch in float64, so that memory does not grow with the number of batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgeformer.errors import InputError
from edgeformer.records.verification import Comparison
from edgeformer.runtime.session import Array

__all__ = ["Accumulator", "worst"]


def _cosine(dot: float, first: float, second: float) -> float:
    """Cosine from a dot product and two sums of squares."""
    if first == 0.0 or second == 0.0:
        return 1.0 if first == second else 0.0
    return max(-1.0, min(1.0, dot / (math.sqrt(first) * math.sqrt(second))))


class Accumulator:
    """Compares one output batch by batch."""

    def __init__(self, name: str = "output") -> None:
        """Start with nothing seen.

        Args:
            name: the output's name, for messages.
        """
        self._name = name
        self._samples = 0
        self._nonfinite = 0
        self._max_abs = 0.0
        self._max_reference = 0.0
        self._dot = 0.0
        self._reference_squares = 0.0
        self._candidate_squares = 0.0
        self._noise_squares = 0.0
        self._cosine_min = 1.0
        self._agreeing: int | None = 0
        self._integers: bool | None = None
        self._elements = 0
        self._equal = 0

    def update(self, reference: Array, candidate: Array) -> None:
        """Add a batch.

        Args:
            reference: [samples, ...], of any type of floats, integers or booleans.
            candidate: the same shape; floats where the reference is, integers or booleans where it is one of these.

        Raises:
            InputError: the shapes differ, there is no batch dimension, or one is of floats and the other is not.
        """
        if reference.shape != candidate.shape or reference.ndim < 1:
            raise InputError(
                "EF812",
                f"output {self._name!r}: the reference is {list(reference.shape)} and the candidate "
                f"{list(candidate.shape)}: both need the same shape [samples, ...]",
            )
        kinds = {array.dtype.kind in "iub" for array in (reference, candidate)}
        if len(kinds | ({self._integers} - {None})) > 1:
            raise InputError(
                "EF812",
                f"output {self._name!r}: the reference is {reference.dtype.name} and the candidate "
                f"{candidate.dtype.name}: floats and integers cannot be compared",
            )
        (self._integers,) = kinds
        samples = reference.shape[0]
        self._samples += samples
        if self._integers:
            self._elements += reference.size
            self._equal += int(np.count_nonzero(reference == candidate))
            return
        if self._agreeing is not None and reference.ndim == 2 and reference.shape[1] >= 2:
            clean = np.isfinite(reference.astype(np.float64)).all(1) & np.isfinite(candidate.astype(np.float64)).all(1)
            self._agreeing += int(np.count_nonzero(clean & (reference.argmax(1) == candidate.argmax(1))))
        else:
            self._agreeing = None
        if reference.size == 0:
            return
        want = reference.reshape(samples, -1).astype(np.float64)
        have = candidate.reshape(samples, -1).astype(np.float64)
        bad = int(np.count_nonzero(~np.isfinite(want))) + int(np.count_nonzero(~np.isfinite(have)))
        self._nonfinite += bad
        if bad:
            return
        noise = have - want
        dots, wants, haves = (np.einsum("ij,ij->i", a, b) for a, b in ((want, have), (want, want), (have, have)))
        self._max_abs = max(self._max_abs, float(np.abs(noise).max()))
        self._max_reference = max(self._max_reference, float(np.abs(want).max()))
        self._dot += float(dots.sum())
        self._reference_squares += float(wants.sum())
        self._candidate_squares += float(haves.sum())
        self._noise_squares += float(np.einsum("ij,ij->", noise, noise))
        for dot, first, second in zip(dots, wants, haves, strict=True):
            self._cosine_min = min(self._cosine_min, _cosine(float(dot), float(first), float(second)))

    @property
    def samples(self) -> int:
        """Number of samples so far."""
        return self._samples

    def result(self) -> Comparison:
        """The figures over all batches so far.

        Raises:
            InputError: there was no sample.
        """
        if self._samples == 0:
            raise InputError("EF813", f"output {self._name!r}: there is no sample to compare")
        if self._integers:
            equal = self._equal / self._elements if self._elements else 1.0
            return Comparison(samples=self._samples, nonfinite=0, integer_agreement=equal)
        agreement = None if self._agreeing is None else self._agreeing / self._samples
        if self._nonfinite:
            figures = dict.fromkeys(("max_abs", "max_abs_relative", "cosine", "cosine_min", "snr_db"), math.nan)
            return Comparison(**figures, top1_agreement=agreement, samples=self._samples, nonfinite=self._nonfinite)
        return Comparison(
            max_abs=self._max_abs,
            max_abs_relative=_ratio(self._max_abs, self._max_reference),
            cosine=_cosine(self._dot, self._reference_squares, self._candidate_squares),
            cosine_min=self._cosine_min,
            snr_db=_decibels(self._reference_squares, self._noise_squares),
            top1_agreement=agreement,
            samples=self._samples,
            nonfinite=0,
        )


def _ratio(value: float, base: float) -> float:
    if base == 0.0:
        return 0.0 if value == 0.0 else math.inf
    return value / base


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return -math.inf if signal == 0.0 else 10.0 * math.log10(signal / noise)


def worst(comparisons: Mapping[str, Comparison]) -> Comparison:
    """Figure by figure the worst of several outputs; NaN is worse than any number.

    A figure is the worst of those outputs that have it, and None where none has.

    Raises:
        InputError: there is no output.
    """
    if not comparisons:
        raise InputError("EF813", "there is no output to compare")
    values = list(comparisons.values())

    def pick(name: str, choose: Callable[[list[float]], float]) -> float | None:
        figures: list[float | None] = [getattr(comparison, name) for comparison in values]
        known = [figure for figure in figures if figure is not None]
        if any(math.isnan(figure) for figure in known):
            return math.nan
        return choose(known) if known else None

    return Comparison(
        max_abs=pick("max_abs", max),
        max_abs_relative=pick("max_abs_relative", max),
        cosine=pick("cosine", min),
        cosine_min=pick("cosine_min", min),
        snr_db=pick("snr_db", min),
        top1_agreement=pick("top1_agreement", min),
        samples=min(comparison.samples for comparison in values),
        nonfinite=sum(comparison.nonfinite for comparison in values),
        integer_agreement=pick("integer_agreement", min),
    )
