from __future__ import annotations

import json
import math

import pytest

from edgeformer.verify.gates import GATES, check, gates_of, judged_against


@pytest.mark.parametrize(
    ("stage", "metric", "direction", "limit"),
    [
        ("export", "max_abs_relative", "<=", 1e-4),
        ("fuse", "max_abs_relative", "<=", 1e-5),
        ("fuse", "routing_agreement", ">=", 0.999),
        ("fp16", "cosine", ">=", 0.9999),
        ("fp16", "top1_agreement", ">=", 0.995),
        ("int8", "accuracy_drop", "<=", 1.0),
    ],
)
def test_the_table_says_what_the_design_says(stage, metric, direction, limit):
    assert [(g.direction, g.limit) for g in GATES if (g.stage, g.metric) == (stage, metric)] == [(direction, limit)]


@pytest.mark.parametrize(
    ("stage", "metric", "limit", "beyond"),
    [
        ("export", "max_abs_relative", 1e-4, 1.01e-4),
        ("fuse", "max_abs_relative", 1e-5, 1.01e-5),
        ("fuse", "routing_agreement", 0.999, 0.9989),
        ("fp32", "cosine", 0.9999, 0.99989),
        ("fp16", "cosine", 0.9999, 0.99989),
        ("bf16", "cosine", 0.999, 0.9989),
        ("int8", "accuracy_drop", 1.0, 1.01),
        ("int8", "top1_agreement", 0.99, 0.9899),
        ("int8", "cosine", 0.99, 0.9899),
    ],
)
def test_the_limit_itself_passes_and_what_is_beyond_misses(stage, metric, limit, beyond):
    assert check(stage, {metric: limit}).passed
    verdict = check(stage, {metric: beyond})
    assert (verdict.passed, verdict.metric, verdict.value, verdict.limit) == (False, metric, beyond, limit)
    assert f"MISSES {'<=' if beyond > limit else '>='} {limit:g}" in verdict.text


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: f"{gate.stage}-{gate.metric}")
def test_nan_misses_every_gate(gate):
    verdict = check(gate.stage, {gate.metric: math.nan})
    assert not verdict.passed
    assert "NaN MISSES" in verdict.text
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["value"] == "nan"


def test_every_condition_of_a_stage_counts_and_the_first_missed_decides():
    good = check("fp16", {"cosine": 0.99999, "top1_agreement": 1.0})
    assert (good.passed, good.metric, good.value) == (True, "cosine", 0.99999)
    assert "top-1 agreement 1 meets >= 0.995" in good.text
    bad = check("fp16", {"cosine": 0.99999, "top1_agreement": 0.99})
    assert (bad.passed, bad.metric, bad.value, bad.limit) == (False, "top1_agreement", 0.99, 0.995)


def test_dense_outputs_are_judged_by_cosine_alone():
    assert check("fp16", {"cosine": 0.99995, "top1_agreement": None}).passed


def test_int8_with_labels_is_judged_by_accuracy_alone():
    verdict = check("int8", {"accuracy_drop": 0.9, "top1_agreement": 0.5, "cosine": 0.5})
    assert (verdict.passed, verdict.metric) == (True, "accuracy_drop")
    assert "in place of" not in verdict.text


def test_int8_without_labels_says_what_is_judged_instead():
    verdict = check("int8", {"top1_agreement": 0.985, "cosine": 0.9999})
    assert (verdict.passed, verdict.metric) == (False, "top1_agreement")
    assert verdict.text.endswith("(judged in place of accuracy drop in points, which is not known here)")
    assert check("int8", {"top1_agreement": None, "cosine": 0.995}).text.endswith(
        "top-1 agreement, which is not known here)"
    )


@pytest.mark.parametrize(
    ("max_drop", "agreement"), [(0.5, 0.995), (2.0, 0.98), (0.7, 993 / 1000), (0.0, 1.0), (0.1, 0.999)]
)
def test_max_drop_moves_both_limits_together(max_drop, agreement):
    assert check("int8", {"accuracy_drop": max_drop}, max_drop=max_drop).passed
    assert not check("int8", {"accuracy_drop": max_drop + 0.01}, max_drop=max_drop).passed
    assert check("int8", {"top1_agreement": agreement}, max_drop=max_drop).passed
    assert not check("int8", {"top1_agreement": agreement - 0.001}, max_drop=max_drop).passed


def test_max_drop_is_int8s_alone():
    assert gates_of("fp16", max_drop=50.0) == gates_of("fp16")


@pytest.mark.parametrize(
    ("stage", "against"), [("export", "previous"), ("fuse", "previous"), ("fp16", "first"), ("int8", "first")]
)
def test_what_the_figures_compare_with(stage, against):
    assert judged_against(stage) == against


def test_an_unknown_stage():
    with pytest.raises(ValueError, match="no gate is named 'fp8'; there are bf16, export"):
        check("fp8", {"cosine": 1.0})


def test_figures_that_no_condition_judges():
    with pytest.raises(ValueError, match="none of the figures cosine is judged by gate 'fuse'"):
        check("fuse", {"cosine": 1.0})
