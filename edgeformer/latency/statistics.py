"""Percentiles with the samples that they need, and ratios with their 95 % intervals by bootstrap over rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgeformer.records.latency import Percentile, TimeDistribution

__all__ = [
    "MOST_BLOCK_MEDIANS",
    "Interval",
    "Round",
    "distribution",
    "ratio_of_medians",
    "ratio_of_p99",
    "samples_needed",
]

Times = NDArray[np.float64]

_CONFIDENCE = 0.99
_QUANTILES = 201
MOST_BLOCK_MEDIANS = 256
_RESAMPLES = 2000
# Fewer where all samples are drawn, which takes longer.
_RESAMPLES_OF_ALL = 1000
_TAILS = (2.5, 97.5)
# Of the rounds' ratios the mean of the middle half is taken: bursts in a quarter of them on a side do not move it.
_TRIMMED = 0.25


@dataclass(frozen=True)
class Round:
    """The blocks of two models that took turns: each model has one before the turn and one after (A B B A).

    Attributes:
        candidate: times of the model's blocks, seconds.
        reference: times of the reference's blocks.
    """

    candidate: tuple[Times, ...]
    reference: tuple[Times, ...]


@dataclass(frozen=True)
class Interval:
    """A ratio and the ends of its 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def furthest(self) -> float:
        """How far its farther end is from 1, as a fraction."""
        return max(math.exp(abs(math.log(end))) - 1 for end in (self.low, self.high))


@cache
def samples_needed(percentile: float) -> int:
    """How many samples a percentile needs, by the rule with which MLPerf's LoadGen stops early.

    Of so many samples two at least are beyond the true percentile with a confidence of 99 %, so that the second longest
    bounds it: the least n with P(Binomial(n, 1 - percentile / 100) <= 1) <= 1 %. That is 64 for the 90th and 662 for
    the 99th.

    Args:
        percentile: 50 or above, below 100.

    Raises:
        ValueError: it is not.
    """
    if not 50 <= percentile < 100:
        raise ValueError(f"percentile {percentile} is not in [50, 100)")
    beyond = 1 - percentile / 100
    count = 2
    while (1 - beyond) ** count + count * beyond * (1 - beyond) ** (count - 1) > 1 - _CONFIDENCE:
        count += 1
    return count


def distribution(blocks: Sequence[Times]) -> TimeDistribution:
    """Sum up the times of a model.

    Args:
        blocks: the times of each block, seconds; one at least has one.
    """
    times = np.concatenate(blocks)

    def percentile(rank: float) -> Percentile:
        needs = samples_needed(rank)
        # The sample below which so many are, as MLPerf takes it, instead of one between two samples.
        found = np.percentile(times, rank, method="higher")
        return Percentile(ms=_milliseconds(found) if len(times) >= needs else None, needs=needs)

    mean = float(times.mean())
    quantiles = np.quantile(times, np.linspace(0, 1, min(_QUANTILES, len(times))))
    medians = [float(np.median(block)) for block in blocks if len(block)]
    step = math.ceil(len(medians) / MOST_BLOCK_MEDIANS)
    return TimeDistribution(
        samples=len(times),
        p50=percentile(50),
        p90=percentile(90),
        p99=percentile(99),
        max=Percentile(ms=_milliseconds(times.max()), needs=1),
        mean_ms=_milliseconds(mean),
        cv=round(float(times.std()) / mean, 6),
        quantiles_ms=tuple(_milliseconds(value) for value in quantiles),
        block_medians_ms=tuple(
            _milliseconds(np.median(medians[start : start + step])) for start in range(0, len(medians), step)
        ),
    )


def ratio_of_medians(rounds: Sequence[Round], seed: int = 0) -> Interval:
    """The candidate's median over the reference's.

    Neighbours are compared: the ratio of a round is that of the geometric means of the blocks' medians, in which what
    drifts evenly cancels (A B B A). Of the rounds' ratios the mean of the middle half is taken, and the bootstrap draws
    rounds.

    Args:
        rounds: two at least.
        seed: of the bootstrap.
    """
    logs = np.array([_log_median(one.candidate) - _log_median(one.reference) for one in rounds])
    drawn = logs[_resamples(len(logs), seed, _RESAMPLES)]
    low, high = np.percentile(_middle(drawn), _TAILS)
    return Interval(math.exp(float(_middle(logs[None])[0])), math.exp(low), math.exp(high))


def ratio_of_p99(rounds: Sequence[Round], seed: int = 0) -> Interval:
    """The candidate's 99th percentile over the reference's, each of all its samples; the bootstrap draws rounds.

    Args:
        rounds: two at least.
        seed: of the bootstrap.
    """
    candidate = [np.concatenate(one.candidate) for one in rounds]
    reference = [np.concatenate(one.reference) for one in rounds]

    def ratio(chosen: Sequence[int] | NDArray[np.int64]) -> float:
        sides = (np.concatenate([side[index] for index in chosen]) for side in (candidate, reference))
        above, below = map(_p99, sides)
        return above / below

    drawn = [ratio(chosen) for chosen in _resamples(len(rounds), seed, _RESAMPLES_OF_ALL)]
    low, high = np.percentile(drawn, _TAILS)
    return Interval(ratio(range(len(rounds))), float(low), float(high))


def _p99(times: Times) -> float:
    place = math.ceil(0.99 * (len(times) - 1))
    return float(np.partition(times, place)[place])


def _log_median(blocks: Sequence[Times]) -> float:
    return float(np.mean([math.log(float(np.median(block))) for block in blocks]))


def _resamples(count: int, seed: int, resamples: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, (resamples, count))


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half of each row."""
    cut = int(values.shape[1] * _TRIMMED)
    kept: NDArray[np.float64] = np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(axis=1)
    return kept


def _milliseconds(seconds: float) -> float:
    """With the digits that a clock of nanoseconds has."""
    return round(1e3 * float(seconds), 6)
