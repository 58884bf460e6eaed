"""Which quantized precisions a target takes, and what an error and a build's last lines say of it."""

from __future__ import annotations

import pytest

from edgeformer.engine.target_types import GAINS, gain_lines, require_precision, support, support_table
from edgeformer.engine.targets import Gain, get_target, list_targets, list_type_rules
from edgeformer.records.terms import QUANTIZED, Precision
from tests.raising import raises

FP8_TARGETS = (
    *("jetson-thor", "jetson-thor-t4000", "igx-thor", "dgx-spark", "dgx-spark-rtx"),
    *("rtx-40", "rtx-50", "rtx-pro", "l4", "l40s", "h100", "b200"),
)


def takes(precision: Precision) -> set[str]:
    targets = list_targets()
    return {one.name for one in targets if support(one.flavour, one.sms, precision).gain != "refused"}


def test_which_targets_take_which() -> None:
    every = {target.name for target in list_targets()}
    assert takes("int8") == takes("int8-weights") == every
    assert takes("fp8") == set(FP8_TARGETS)
    assert takes("int4-weights") == every - {"rtx-20", "t4"}


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("jetson-agx-orin", ("accelerates", "shrinks", "refused", "shrinks")),
        ("jetson-thor", ("accelerates", "shrinks", "accelerates", "shrinks")),
        ("rtx", ("unlisted", "shrinks", "refused", "shrinks")),
        ("rtx-20", ("unlisted", "shrinks", "refused", "refused")),
        ("rtx-40", ("unlisted", "shrinks", "accelerates", "shrinks")),
        ("dgx-spark", ("accelerates", "shrinks", "accelerates", "shrinks")),
        ("dgx-spark-rtx", ("unlisted", "shrinks", "accelerates", "shrinks")),
        ("t4", ("accelerates", "shrinks", "refused", "refused")),
    ],
)
def test_what_a_target_gains(name: str, gains: tuple[Gain, ...]) -> None:
    target = get_target(name)
    assert tuple(support(target.flavour, target.sms, one).gain for one in QUANTIZED) == gains


@pytest.mark.parametrize("name", ["rtx-20", "rtx-30", "a100-rtx", "rtx", "jetson-orin-nano", "t4", "a10"])
def test_fp8_below_8_9_is_refused_with_the_targets_that_take_it(name: str) -> None:
    target = get_target(name)
    with raises(
        "EF545", name, target.compute_capability, "fp8", "8.9", "https://", *FP8_TARGETS, "int8-weights", "fp16"
    ):
        require_precision(target, "fp8")


def test_int4_on_turing_is_refused() -> None:
    with raises("EF545", "rtx-20", "int4-weights", "8.0", "rtx-30", "jetson-orin-nano"):
        require_precision(get_target("rtx-20"), "int4-weights")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights"])
def test_what_a_target_takes_passes(precision: Precision) -> None:
    require_precision(get_target("rtx"), precision)


def test_the_lines_name_each_precision_once_and_the_source() -> None:
    first, second = gain_lines("rtx-40", "tensorrt_rtx", (89,), "int8-weights")
    assert "int8-weights on rtx-40: only shrinks" in first
    assert "support-matrix" in first
    assert second == (
        "rtx-40 accelerates fp8; only shrinks the weights with int8-weights, int4-weights; builds, and NVIDIA does not "
        "list, int8"
    )
    _, orin = gain_lines("jetson-agx-orin", "tensorrt", (87,), "int8")
    assert orin == (
        "jetson-agx-orin accelerates int8; only shrinks the weights with int8-weights, int4-weights; does not take fp8"
    )
    assert "faster" not in " ".join([first, second, orin])


def test_every_rule_can_be_reached_and_has_a_source() -> None:
    """Of two rules for one flavour and precision each begins elsewhere, and the first at the lowest target."""
    rules = list_type_rules()
    keys = [(rule.flavour, rule.precision, rule.sms_from) for rule in rules]
    assert len(set(keys)) == len(keys)
    assert {(rule.flavour, rule.precision) for rule in rules} == {
        (flavour, one) for flavour in ("tensorrt", "tensorrt_rtx") for one in QUANTIZED
    }
    assert all(rule.source.startswith("https://") for rule in rules)
    assert {rule.gain for rule in rules} == set(GAINS)


def test_the_table_has_every_compute_capability_once_a_flavour() -> None:
    for flavour in ("tensorrt", "tensorrt_rtx"):
        sms = [sm for name, group, _ in support_table() if name == flavour for sm in group]
        wanted = {sm for target in list_targets() if target.flavour == flavour for sm in target.sms}
        assert sms == sorted(wanted)


def test_a_gpu_below_all_rules_is_as_the_lowest() -> None:
    """`--target local` may be any GPU."""
    assert support("tensorrt", [70], "fp8").gain == "refused"
    assert support("tensorrt", [103], "fp8").gain == "accelerates"
