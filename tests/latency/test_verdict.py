"""Verdicts on intervals, and the advice that follows."""

from __future__ import annotations

import pytest

from edgeformer.latency.statistics import Interval
from edgeformer.latency.verdict import advise, judge, limit_of
from edgeformer.records.latency import ComparisonVerdict, LatencyComparison

QUIET = Interval(1.0, 0.995, 1.004)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.90, 0.97, "faster"),
        (0.90, 0.985, "not decided"),
        (0.985, 1.015, "no difference"),
        (1.0, 1.03, "not decided"),
        (1.021, 1.05, "slower"),
        (0.5, 2.0, "not decided"),
        # As far as 1.02 is 1 / 1.02, not 0.98.
        (0.90, 0.9802, "faster"),
        (0.90, 0.9806, "not decided"),
    ],
)
def test_the_whole_interval_has_to_be_beyond_two_percent(low: float, high: float, verdict: str) -> None:
    found = judge(Interval((low * high) ** 0.5, low, high), QUIET)
    assert found.verdict == verdict
    assert bool(found.reason) == (verdict == "not decided")


def test_more_noise_needs_more_of_a_difference() -> None:
    noisy = Interval(1.0, 0.98, 1.04)
    assert limit_of(None) == limit_of(QUIET) == 0.02
    assert limit_of(noisy) == pytest.approx(0.04)
    slower = Interval(1.04, 1.03, 1.05)
    assert judge(slower, QUIET).verdict == "slower"
    found = judge(slower, noisy)
    assert (found.verdict, "4.0 %" in found.reason) == ("not decided", True)
    assert judge(Interval(1.1, 1.05, 1.15), noisy).verdict == "slower"


def test_with_much_noise_nothing_is_said_to_be_equal() -> None:
    loud = Interval(1.0, 0.9, 1.2)
    found = judge(Interval(1.0, 0.99, 1.01), loud)
    assert found.verdict == "not decided"
    assert "20.0 %" in found.reason
    assert judge(Interval(0.5, 0.45, 0.55), loud).verdict == "faster"


def compared(name: str, reference: str, verdict: ComparisonVerdict, ratio: float = 1.0) -> LatencyComparison:
    return LatencyComparison(
        name=name,
        reference=reference,
        batch=4,
        timing="end_to_end",
        statistic="median",
        ratio=ratio,
        low=ratio,
        high=ratio,
        noise=0.0,
        limit=0.02,
        rounds=40,
        verdict=verdict,
        reason="it was so loud" if verdict == "not decided" else "",
    )


def test_the_faster_one_is_shipped() -> None:
    found = advise(["a", "b"], ["fp16", "int8"], [compared("b", "a", "faster", 0.5)], 4)
    assert (found.ship, found.text) == ("b", "ship INT8: 2.00 times as fast as FP16 end to end at batch 4")
    found = advise(["a", "b"], ["fp16", "int8"], [compared("b", "a", "slower", 1.25)], 4)
    assert (found.ship, found.text) == ("a", "ship FP16: 1.25 times as fast as INT8 end to end at batch 4")


def test_of_equally_fast_ones_the_more_exact_is_shipped() -> None:
    for order in (["int8", "fp16"], ["fp16", "int8"]):
        names = [f"model-{one}" for one in order]
        found = advise(names, order, [compared(names[1], names[0], "no difference")], 4)
        assert (found.ship, found.text) == ("model-fp16", "ship FP16: no difference from INT8 end to end at batch 4")


def test_names_where_the_precisions_tell_nothing() -> None:
    for precisions in (["int8", "int8"], ["", "int8"]):
        found = advise(["old", "new"], precisions, [compared("new", "old", "faster", 0.8)], 1)
        assert found.text == "ship new: 1.25 times as fast as old end to end at batch 1"


def test_undecided_pairs_matter_where_they_are_for_the_first_place() -> None:
    names, precisions = ["a", "b", "c"], ["fp32", "fp16", "int8"]
    pairs = [compared("b", "a", "faster", 0.6), compared("c", "a", "faster", 0.5)]
    found = advise(names, precisions, [*pairs, compared("c", "b", "not decided")], 4)
    assert found.ship is None
    assert found.text == "not decided between FP16 and INT8, because it was so loud"
    # Which of the two slow ones is slower does not matter.
    found = advise(
        names,
        precisions,
        [compared("b", "a", "not decided"), compared("c", "a", "faster", 0.5), compared("c", "b", "faster", 0.8)],
        4,
    )
    assert (found.ship, found.text) == ("c", "ship INT8: 1.25 times as fast as FP16 end to end at batch 4")


def test_a_circle_gives_no_advice() -> None:
    pairs = [compared("b", "a", "faster"), compared("c", "b", "faster"), compared("c", "a", "slower")]
    found = advise(["a", "b", "c"], ["", "", ""], pairs, 4)
    assert (found.ship, found.text) == (None, "not decided: no model is the fastest end to end at batch 4")
