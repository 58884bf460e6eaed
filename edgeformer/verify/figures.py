"""How far one model's outputs are from another's: the figures that gates judge.

Everything is summed up batch by batch in float64, so that memory does not grow with the number of batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer.errors import InputError
from edgeformer.runtime.session import Array

__all__ = ["Accumulator", "Comparison", "from_json_number", "to_json_number", "worst"]


def to_json_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: ``"inf"``, ``"-inf"`` and ``"nan"`` as text, anything else as it is."""
    return value if value is None or math.isfinite(value) else str(float(value))


def from_json_number(value: float | str | None) -> float | None:
    """The number that `to_json_number` wrote."""
    return None if value is None else float(value)


@dataclass(frozen=True)
class Comparison:
    """One output of a candidate against the same output of the reference, over all samples.

    If any value of either is NaN or infinite, every float figure is NaN, which no gate lets pass.

    Attributes:
        max_abs: largest |candidate - reference|.
        max_abs_relative: ``max_abs`` over the largest |reference| (0 where both are 0, inf where only that is 0).
        cosine: cosine between the two, all samples taken as one vector (1 where both are all zeros, 0 where one is).
        cosine_min: cosine of the sample where it is smallest.
        snr_db: 10 log10(sum reference^2 / sum (candidate - reference)^2), in dB; inf where they are identical.
        top1_agreement: fraction of samples whose largest class is the same; None where the output is not
            [samples, classes >= 2]. A sample with a NaN agrees with nothing.
        samples: number of samples compared.
        nonfinite: number of NaN and infinite values in the two.
    """

    max_abs: float
    max_abs_relative: float
    cosine: float
    cosine_min: float
    snr_db: float
    top1_agreement: float | None
    samples: int
    nonfinite: int

    def to_dict(self) -> dict[str, float | str | None]:
        """The figures as JSON holds them; infinities and NaN are text (see `to_json_number`)."""
        return {name: to_json_number(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> Comparison:
        """What `to_dict` wrote."""
        read: dict[str, Any] = {name: from_json_number(value) for name, value in figures.items()}
        return cls(**{**read, "samples": int(figures["samples"]), "nonfinite": int(figures["nonfinite"])})


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

    def update(self, reference: Array, candidate: Array) -> None:
        """Add a batch.

        Args:
            reference: [samples, ...], any float or integer type.
            candidate: the same shape, any float or integer type.

        Raises:
            InputError: the shapes differ, or there is no batch dimension.
        """
        if reference.shape != candidate.shape or reference.ndim < 1:
            raise InputError(
                f"output {self._name!r}: the reference is {list(reference.shape)} and the candidate "
                f"{list(candidate.shape)}: they cannot be compared"
            )
        samples = reference.shape[0]
        self._samples += samples
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

    def result(self) -> Comparison:
        """The figures over all batches so far.

        Raises:
            InputError: there was no sample.
        """
        if self._samples == 0:
            raise InputError(f"output {self._name!r}: there is no sample to compare")
        agreement = None if self._agreeing is None else self._agreeing / self._samples
        if self._nonfinite:
            nan = math.nan
            return Comparison(nan, nan, nan, nan, nan, agreement, self._samples, self._nonfinite)
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

    ``top1_agreement`` is the lowest of those outputs that have one.

    Raises:
        InputError: there is no output.
    """
    if not comparisons:
        raise InputError("there is no output to compare")
    values = list(comparisons.values())

    def pick(name: str, choose: Any) -> float:
        figures = [float(getattr(comparison, name)) for comparison in values]
        return math.nan if any(math.isnan(figure) for figure in figures) else float(choose(figures))

    agreements = [comparison.top1_agreement for comparison in values if comparison.top1_agreement is not None]
    return Comparison(
        max_abs=pick("max_abs", max),
        max_abs_relative=pick("max_abs_relative", max),
        cosine=pick("cosine", min),
        cosine_min=pick("cosine_min", min),
        snr_db=pick("snr_db", min),
        top1_agreement=min(agreements, default=None),
        samples=min(comparison.samples for comparison in values),
        nonfinite=sum(comparison.nonfinite for comparison in values),
    )
