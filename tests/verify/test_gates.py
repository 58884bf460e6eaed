from __future__ import annotations

import json
import math

import pytest

from edgeformer.records.terms import PRECISIONS, QUANTIZED, Precision
from edgeformer.verify.gates import (
    GATES,
    Gate,
    block_stage,
    check,
    check_accepted,
    fuse_stage,
    gates_of,
    judge,
    judged_against,
    largest_tie,
)
from tests.raising import raises


@pytest.mark.parametrize(
    ("stage", "metric", "direction", "limit"),
    [
        ("export", "max_abs_relative", "<=", 1e-4),
        ("fuse", "max_abs_relative", "<=", 1e-5),
        ("fuse", "routing_agreement", ">=", 0.999),
        ("fp16", "cosine", ">=", 0.9999),
        ("fp16", "top1_agreement", ">=", 0.995),
        ("int8", "accuracy_drop", "<=", 1.0),
        ("int8-weights", "accuracy_drop", "<=", 1.0),
        ("fp8", "accuracy_drop", "<=", 1.0),
        ("int4-weights", "accuracy_drop", "<=", 1.0),
    ],
)
def test_the_table_says_what_the_design_says(stage: str, metric: str, direction: str, limit: float) -> None:
    assert [(g.direction, g.limit) for g in GATES if (g.stage, g.metric) == (stage, metric)] == [(direction, limit)]


@pytest.mark.parametrize(
    ("stage", "metric", "limit", "beyond"),
    [
        ("export", "max_abs_relative", 1e-4, 1.01e-4),
        ("fuse", "max_abs_relative", 1e-5, 1.01e-5),
        ("fuse", "routing_agreement", 0.999, 0.9989),
        ("export", "integer_agreement", 0.999, 0.9989),
        ("fuse", "integer_agreement", 0.999, 0.9989),
        ("fp32", "integer_agreement", 0.995, 0.9949),
        ("fp16", "integer_agreement", 0.995, 0.9949),
        ("bf16", "integer_agreement", 0.99, 0.9899),
        ("int8", "integer_agreement", 0.99, 0.9899),
        ("fp32", "cosine", 0.9999, 0.99989),
        ("fp16", "cosine", 0.9999, 0.99989),
        ("bf16", "cosine", 0.999, 0.9989),
        ("int8", "accuracy_drop", 1.0, 1.01),
        ("int8", "top1_agreement", 0.99, 0.9899),
        ("int8", "cosine", 0.99, 0.9899),
        ("int8-weights", "cosine", 0.999, 0.9989),
        ("int8-weights", "top1_agreement", 0.99, 0.9899),
        ("fp8", "cosine", 0.99, 0.9899),
        ("int4-weights", "cosine", 0.99, 0.9899),
        ("int4-weights", "accuracy_drop", 1.0, 1.01),
    ],
)
def test_the_limit_itself_passes_and_what_is_beyond_misses(
    stage: str, metric: str, limit: float, beyond: float
) -> None:
    assert check(stage, {metric: limit}).passed
    verdict = check(stage, {metric: beyond})
    assert (verdict.passed, verdict.metric, verdict.value, verdict.limit) == (False, metric, beyond, limit)
    assert f"MISSES {'<=' if beyond > limit else '>='} {limit:g}" in verdict.text


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: f"{gate.stage}-{gate.metric}")
def test_nan_misses_every_gate(gate: Gate) -> None:
    verdict = check(gate.stage, {gate.metric: math.nan})
    assert not verdict.passed
    assert "NaN MISSES" in verdict.text
    assert json.loads(verdict.model_dump_json())["value"] == "nan"


def test_every_condition_of_a_stage_counts_and_the_first_missed_decides() -> None:
    good = check("fp16", {"cosine": 0.99999, "top1_agreement": 1.0})
    assert (good.passed, good.metric, good.value) == (True, "cosine", 0.99999)
    assert "top-1 agreement 1 meets >= 0.995" in good.text
    bad = check("fp16", {"cosine": 0.99999, "top1_agreement": 0.99})
    assert (bad.passed, bad.metric, bad.value, bad.limit) == (False, "top1_agreement", 0.99, 0.995)


def test_dense_outputs_are_judged_by_cosine_alone() -> None:
    assert check("fp16", {"cosine": 0.99995, "top1_agreement": None}).passed


def test_int8_with_labels_is_judged_by_accuracy_alone() -> None:
    verdict = check("int8", {"accuracy_drop": 0.9, "top1_agreement": 0.5, "cosine": 0.5})
    assert (verdict.passed, verdict.metric) == (True, "accuracy_drop")
    assert "in place of" not in verdict.text


def test_int8_without_labels_says_what_is_judged_instead() -> None:
    verdict = check("int8", {"top1_agreement": 0.985, "cosine": 0.9999})
    assert (verdict.passed, verdict.metric) == (False, "top1_agreement")
    assert verdict.text.endswith("(judged in place of accuracy drop in points, which is not known here)")
    assert check("int8", {"top1_agreement": None, "cosine": 0.995}).text.endswith(
        "top-1 agreement, which is not known here)"
    )


@pytest.mark.parametrize(
    ("max_drop", "agreement"), [(0.5, 0.995), (2.0, 0.98), (0.7, 993 / 1000), (0.0, 1.0), (0.1, 0.999)]
)
def test_max_drop_moves_both_limits_together(max_drop: float, agreement: float) -> None:
    assert check("int8", {"accuracy_drop": max_drop}, max_drop=max_drop).passed
    assert not check("int8", {"accuracy_drop": max_drop + 0.01}, max_drop=max_drop).passed
    assert check("int8", {"top1_agreement": agreement}, max_drop=max_drop).passed
    assert not check("int8", {"top1_agreement": agreement - 0.001}, max_drop=max_drop).passed
    assert check("int8", {"integer_agreement": agreement}, max_drop=max_drop).passed
    assert not check("int8", {"integer_agreement": agreement - 0.001}, max_drop=max_drop).passed


def test_max_drop_is_int8s_alone() -> None:
    assert gates_of("fp16", max_drop=50.0) == gates_of("fp16")


@pytest.mark.parametrize(
    ("stage", "against"), [("export", "previous"), ("fuse", "previous"), ("fp16", "first"), ("int8", "first")]
)
def test_what_the_figures_compare_with(stage: str, against: str) -> None:
    assert judged_against(stage) == against


def test_an_unknown_stage() -> None:
    with pytest.raises(ValueError, match="no gate is named 'fp4'; there are bf16, block, block-fp32, export"):
        check("fp4", {"cosine": 1.0})


def test_figures_that_no_condition_judges() -> None:
    with pytest.raises(ValueError, match="none of the figures cosine is judged by gate 'fuse'"):
        check("fuse", {"cosine": 1.0})


# Results within a block are compared where they are floats; its integers are routing, which is judged by itself.
@pytest.mark.parametrize("stage", sorted({gate.stage for gate in GATES} - {"block", "block-fp32"}))
def test_an_integer_is_judged_as_a_top1_class_is(stage: str) -> None:
    """Whatever a stage or a precision may change of the classes, it may change of outputs that are classes."""
    # A fused graph in 16 bits is judged as its precision is.
    stages = (stage, stage.removeprefix("fuse-"))
    limits = {gate.metric: gate.limit for gate in GATES if gate.stage in stages}
    assert limits["integer_agreement"] == limits.get("top1_agreement", limits.get("routing_agreement"))


def test_each_condition_is_judged_by_its_worst_output() -> None:
    verdict = judge(
        "fp16",
        {
            "logits": {"cosine": 0.99999, "top1_agreement": 0.99, "integer_agreement": None},
            "map": {"cosine": 0.99995, "top1_agreement": None},
            "more": {"cosine": 0.99999, "top1_agreement": 1.0},
            "classes": {"cosine": None, "integer_agreement": 0.996},
        },
    )
    assert (verdict.passed, verdict.metric, verdict.value, verdict.output) == (False, "top1_agreement", 0.99, "logits")
    assert verdict.text == (
        "cosine 0.99995 of 'map' meets >= 0.9999; top-1 agreement 0.99 of 'logits' MISSES >= 0.995; "
        "integer agreement 0.996 of 'classes' meets >= 0.995"
    )
    assert verdict.output == "logits"


@pytest.mark.parametrize("order", [1, -1])
def test_a_nan_is_the_worst_of_all(order: int) -> None:
    outputs = {
        "good": {"max_abs_relative": 1e-7},
        "nan": {"max_abs_relative": math.nan},
        "bad": {"max_abs_relative": 9.0},
    }
    verdict = judge("export", dict(list(outputs.items())[::order]))
    assert (verdict.passed, verdict.output) == (False, "nan")
    cosines = {name: {"cosine": value} for name, value in (("a", -1.0), ("nan", math.nan), ("c", 1.0))}
    assert judge("fp16", dict(list(cosines.items())[::order])).output == "nan"


def test_an_output_without_the_task_metric_is_judged_by_its_agreement() -> None:
    """What top-1 says of the logits says nothing of what stands beside them."""
    logits = {"accuracy_drop": 0.0, "top1_agreement": 0.9, "cosine": 0.9}
    verdict = judge("int8", {"logits": logits, "features": {"cosine": 0.5}})
    assert (verdict.passed, verdict.metric, verdict.output) == (False, "cosine", "features")
    assert "in place of" not in verdict.text
    other = {"top1_agreement": 0.9, "cosine": 1.0}
    verdict = judge("int8", {"logits": logits, "other": other, "classes": {"integer_agreement": 0.98}})
    assert [part.split(" MISSES")[0] for part in verdict.text.split("; ")[1:]] == [
        "top-1 agreement 0.9 of 'other'",
        "integer agreement 0.98 of 'classes'",
    ]


def test_dense_outputs_with_a_task_metric_are_judged_by_it_alone() -> None:
    assert judge("int8", {"map": {"accuracy_drop": 0.5, "cosine": 0.5}}).passed


def test_what_is_known_and_says_nothing_is_told() -> None:
    figures = {"logits": {"top1_agreement": 1.0, "cosine": 1.0}}
    verdict = judge("int8", figures, not_judged={"accuracy_drop": "it was at chance"})
    assert verdict.passed
    assert verdict.text == "accuracy drop in points not judged: it was at chance; top-1 agreement 1 meets >= 0.99"
    assert "chance" not in judge("fp16", figures, not_judged={"accuracy_drop": "it was at chance"}).text


def test_figures_of_the_whole_model_belong_to_no_output() -> None:
    outputs = {"a": {"max_abs_relative": 0.0}, "b": {"max_abs_relative": 0.0}}
    verdict = judge("fuse", outputs, shared={"routing_agreement": 0.5})
    assert (verdict.passed, verdict.metric, verdict.output) == (False, "routing_agreement", None)
    assert "routing agreement 0.5 MISSES >= 0.999" in verdict.text
    assert "routing" not in judge("fuse", outputs, shared={"routing_agreement": None}).text


def test_no_output_goes_unjudged() -> None:
    outputs: dict[str, dict[str, float | None]] = {"logits": {"cosine": 1.0}, "text": {"cosine": None, "length": 3.0}}
    with pytest.raises(ValueError, match="none of the figures length of output 'text' is judged by gate 'fp16'"):
        judge("fp16", outputs)
    with pytest.raises(ValueError, match=r"none of the figures \(none\) is judged by gate 'fp16'"):
        judge("fp16", {})


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_graph_in_16_bits_is_judged_as_that_precision_is(precision: Precision) -> None:
    stage = fuse_stage(precision)
    assert stage == f"fuse-{precision}"
    assert judged_against(stage) == "previous"
    limits = {gate.metric: gate.limit for gate in gates_of(precision)}
    assert {gate.metric: gate.limit for gate in gates_of(stage)} == {
        metric: limits[metric] for metric in ("cosine", "integer_agreement")
    }


def test_a_graph_in_fp32_is_judged_by_its_last_bits() -> None:
    assert fuse_stage("fp32") == "fuse"
    assert not check(fuse_stage("fp32"), {"max_abs_relative": 2e-4, "cosine": 1.0}).passed
    assert check(fuse_stage("fp16"), {"max_abs_relative": 2e-4, "cosine": 1.0}).passed


def test_accepted_outputs_have_to_be_there() -> None:
    check_accepted(["a"], ["a", "b"])
    with raises("EF347", "'c'", "'a', 'b'"):
        check_accepted(["a", "c"], ["a", "b"])


def test_a_block_in_fp32_is_judged_by_its_largest_difference_and_others_by_what_is_expected() -> None:
    assert {block_stage(one) for one in PRECISIONS if one != "fp32"} == {"block"}
    assert block_stage("fp32") == "block-fp32"
    assert check(block_stage("fp32"), {"max_abs_relative": 1e-5}).passed
    assert not check(block_stage("fp32"), {"max_abs_relative": 1.1e-5}).passed
    assert check(block_stage("int8"), {"noise_ratio": 4.0}).passed
    assert not check(block_stage("int8"), {"noise_ratio": 4.1}).passed


@pytest.mark.parametrize("precision", QUANTIZED)
def test_every_quantized_precision_has_a_gate_that_max_drop_moves(precision: Precision) -> None:
    limits = {gate.metric: gate.limit for gate in gates_of(precision, max_drop=3.0)}
    assert limits["accuracy_drop"] == 3.0
    assert limits["top1_agreement"] == limits["integer_agreement"] == 0.97
    assert not check(precision, {"accuracy_drop": 3.1}, max_drop=3.0).passed
    # Labels are judged where there are some, and nothing in their place.
    assert check(precision, {"accuracy_drop": 0.0, "top1_agreement": 0.5, "cosine": 0.5}).passed


def test_two_logits_may_move_towards_each_other() -> None:
    # In FP32 by what any result may differ; else by twice what rounding moves them, each of the two.
    assert largest_tie("fp32", 7.0, largest=100.0) == pytest.approx(2 * 1e-5 * 100.0)
    assert largest_tie("fp16", 0.01, largest=100.0) == pytest.approx(2 * 2 * 0.01)
