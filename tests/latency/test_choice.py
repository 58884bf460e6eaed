"""Which engine is kept, by the verdicts on all of them."""

from __future__ import annotations

import pytest

from edgeformer.latency.choice import choose, outcome_of
from edgeformer.latency.verdict import advise
from edgeformer.records.latency import LatencyComparison, LatencyReport, LoadFigures, MachineFacts
from tests.latency.test_verdict import compared

NAMES = ["fp16", "exact", "int8"]
PRECISIONS = {"fp16": "fp16", "exact": "int8", "int8": "int8"}


def report(*comparisons: LatencyComparison, names: list[str] = NAMES) -> LatencyReport:
    precisions = [PRECISIONS[name] for name in names]
    return LatencyReport(
        measured="",
        machine=MachineFacts(processor="", cores=1, versions={}),
        figures=(),
        comparisons=comparisons,
        load=LoadFigures(cores=0, of_cores=1, limit_cores=0.1, rounds=40, disturbed=0),
        advice=advise(names, precisions, comparisons, 4) if len(names) > 1 else None,
    )


def test_the_fastest_is_kept() -> None:
    found = report(
        compared("exact", "fp16", "faster", 0.8),
        compared("int8", "fp16", "faster", 0.5),
        compared("int8", "exact", "faster", 0.6),
    )
    kept, why = choose(NAMES, "fp16", found)
    assert (kept, why) == ("int8", "ship int8: 1.67 times as fast as exact end to end at batch 4")
    assert [outcome_of(name, kept, found) for name in NAMES] == ["slower", "slower", "kept"]


def test_of_equals_the_first_of_the_most_exact_precision_is_kept() -> None:
    found = report(
        compared("exact", "fp16", "faster", 0.8),
        compared("int8", "fp16", "faster", 0.8),
        compared("int8", "exact", "no difference"),
    )
    kept, _ = choose(NAMES, "int8", found)
    assert kept == "exact"
    assert [outcome_of(name, kept, found) for name in NAMES] == ["slower", "kept", "no difference"]


@pytest.mark.parametrize(("own", "kept"), [("int8", "int8"), ("fp16", "exact"), ("none of them", "exact")])
def test_where_nothing_is_decided_the_own_one_stays_unless_it_is_beaten(own: str, kept: str) -> None:
    found = report(
        compared("exact", "fp16", "faster", 0.8),
        compared("int8", "fp16", "not decided"),
        compared("int8", "exact", "not decided"),
    )
    choice = choose(NAMES, own, found)
    assert choice.kept == kept
    assert choice.why == f"{kept} is kept: not decided between exact and int8, because it was so loud"
    assert outcome_of("int8" if kept == "exact" else "exact", kept, found) == "not decided"


def test_each_beaten_by_another_is_noise() -> None:
    found = report(
        compared("exact", "fp16", "faster"), compared("int8", "exact", "faster"), compared("int8", "fp16", "slower")
    )
    choice = choose(NAMES, "int8", found)
    assert choice.kept == "int8"
    # It beats the one that is kept.
    assert outcome_of("fp16", "int8", found) == "not decided"


def test_one_alone_and_none_that_could_be_timed() -> None:
    assert choose(["fp16"], "int8", report(names=["fp16"])) == ("fp16", "fp16 alone meets its gate")
    assert choose(NAMES, "int8", None, "no clock") == ("int8", "int8 is kept, and nothing was timed: no clock")
    assert choose(NAMES, "missed", None, "no clock").kept == "fp16"
    assert outcome_of("int8", "fp16", None) == "not timed"
    assert outcome_of("fp16", "fp16", None) == "kept"
