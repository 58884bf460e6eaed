"""Percentiles, the samples that they need, and intervals of ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeformer.latency.statistics import (
    MOST_BLOCK_MEDIANS,
    Interval,
    Round,
    distribution,
    ratio_of_medians,
    ratio_of_p99,
    samples_needed,
)


@pytest.mark.parametrize(("percentile", "needs"), [(50, 11), (90, 64), (99, 662)])
def test_the_samples_of_mlperfs_rule(percentile: float, needs: int) -> None:
    assert samples_needed(percentile) == needs
    # By the binomial distribution, term by term: with one sample fewer one at most is beyond too often.
    beyond = 1 - percentile / 100

    def at_most_one(count: int) -> float:
        terms = (math.comb(count, k) * beyond**k * (1 - beyond) ** (count - k) for k in (0, 1))
        return sum(terms)

    assert at_most_one(needs) <= 0.01 < at_most_one(needs - 1)


@pytest.mark.parametrize("percentile", [49, 100, -1])
def test_other_percentiles_are_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        samples_needed(percentile)


@pytest.mark.parametrize(
    ("samples", "known"),
    [
        (1, (False, False, False)),
        (11, (True, False, False)),
        (63, (True, False, False)),
        (64, (True, True, False)),
        (661, (True, True, False)),
        (662, (True, True, True)),
    ],
)
def test_a_percentile_without_its_samples_is_not_told(samples: int, known: tuple[bool, bool, bool]) -> None:
    found = distribution([np.arange(1, samples + 1) / 1e3])
    assert (found.p50.ms is not None, found.p90.ms is not None, found.p99.ms is not None) == known
    assert found.samples == samples
    assert found.max.ms == samples
    assert (found.p50.needs, found.p90.needs, found.p99.needs) == (11, 64, 662)


def test_the_figures_of_known_times() -> None:
    times = np.arange(1, 1001) / 1e3
    np.random.default_rng(0).shuffle(times)
    found = distribution(np.split(times, 10))
    assert (found.p50.ms, found.p90.ms, found.p99.ms, found.max.ms) == (501, 901, 991, 1000)
    assert found.mean_ms == 500.5
    assert found.cv == pytest.approx(np.std(times) / np.mean(times), abs=1e-6)
    assert len(found.quantiles_ms) == 201
    assert (found.quantiles_ms[0], found.quantiles_ms[100], found.quantiles_ms[-1]) == (1, 500.5, 1000)
    assert found.block_medians_ms == tuple(round(1e3 * float(np.median(part)), 6) for part in np.split(times, 10))


def test_many_blocks_are_put_together_for_a_plot() -> None:
    found = distribution([np.array([index / 1e3]) for index in range(1, 601)])
    assert len(found.block_medians_ms) == 200 <= MOST_BLOCK_MEDIANS
    assert found.block_medians_ms[:2] == (2, 5)


def rounds_of(ratio: float, count: int, noise: float, seed: int, drift: float = 0.0) -> list[Round]:
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        speed = 1 + drift * index

        def block(factor: float, speed: float = speed) -> np.ndarray:
            return 1e-3 * factor * speed * np.exp(random.normal(0, noise, 20))

        found.append(Round((block(ratio), block(ratio)), (block(1), block(1))))
    return found


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.05])
def test_the_interval_holds_the_ratio(ratio: float) -> None:
    held = 0
    for seed in range(40):
        found = ratio_of_medians(rounds_of(ratio, 40, 0.02, seed))
        assert found.low < found.ratio < found.high
        held += found.low <= ratio <= found.high
        assert found.high / found.low < 1.01
    assert held >= 34  # 95 % of 40 are 38


def test_what_drifts_cancels() -> None:
    # Twice as slow in the end as at the start: pooled, the samples would tell nothing of 3 %.
    found = ratio_of_medians(rounds_of(1.03, 40, 0.01, 0, drift=0.025))
    assert found.ratio == pytest.approx(1.03, abs=0.003)
    assert found.high - found.low < 0.01


def test_bursts_in_a_few_rounds_move_nothing() -> None:
    rounds = rounds_of(1.0, 40, 0.01, 3)
    disturbed = [Round((one.candidate[0] * 3, one.candidate[1] * 2), one.reference) for one in rounds[:8]]
    quiet, loud = ratio_of_medians(rounds), ratio_of_medians([*disturbed, *rounds[8:]])
    assert loud.ratio == pytest.approx(quiet.ratio, abs=0.003)
    assert loud.low > 0.99
    # What is always so is found all the same.
    assert (
        ratio_of_medians(
            [Round((one.candidate[0] * 1.05, one.candidate[1] * 1.05), one.reference) for one in rounds]
        ).low
        > 1.04
    )


def test_p99_is_of_all_samples() -> None:
    random = np.random.default_rng(1)

    def block(tail: float) -> np.ndarray:
        times = 1e-3 * np.exp(random.normal(0, 0.01, 50))
        times[random.random(50) < 0.05] *= tail
        return times

    rounds = [Round((block(2.0), block(2.0)), (block(1.0), block(1.0))) for _ in range(40)]
    found = ratio_of_p99(rounds)
    candidate, reference = (
        np.concatenate([block for one in rounds for block in one.candidate]),
        np.concatenate([block for one in rounds for block in one.reference]),
    )
    exact = [np.percentile(times, 99, method="higher") for times in (candidate, reference)]
    assert found.ratio == pytest.approx(exact[0] / exact[1])
    assert 1.8 < found.low < found.high < 2.2
    assert ratio_of_medians(rounds).high < 1.01


def test_the_same_seed_gives_the_same_interval() -> None:
    rounds = rounds_of(1.01, 12, 0.02, 5)
    assert ratio_of_medians(rounds) == ratio_of_medians(rounds)
    assert ratio_of_p99(rounds) == ratio_of_p99(rounds)


@pytest.mark.parametrize(("low", "high", "furthest"), [(0.99, 1.03, 0.03), (0.8, 1.1, 0.25), (1.0, 1.0, 0.0)])
def test_the_far_end(low: float, high: float, furthest: float) -> None:
    assert Interval(1.0, low, high).furthest == pytest.approx(furthest)
