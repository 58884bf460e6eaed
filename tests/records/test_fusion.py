"""What a fusion report warns of, and when it is not enough."""

from __future__ import annotations

import pytest

from edgeformer.records.fusion import BlockReport, FusionReport
from tests.raising import raises


def report(*reasons: str | None) -> FusionReport:
    blocks = tuple(
        BlockReport(
            status="fused" if reason is None else "left",
            nodes=(f"topk_{number}", "softmax"),
            attributes=None,
            op=None if reason else f"op_{number}",
            proof_error=None,
            draws=0,
            reason=reason,
        )
        for number, reason in enumerate(reasons)
    )
    left = sum(reason is not None for reason in reasons)
    return FusionReport(fused=len(blocks) - left, left=left, whole_graph_error=None, blocks=blocks, lepe=())


@pytest.mark.parametrize(
    ("reasons", "op_nodes", "expected"),
    [
        ((), 0, ["nothing in this graph"]),
        ((), 2, []),
        ((None, None), 2, []),
        ((None, "it is masked", "it is masked"), 1, ["topk_1 was not fused: it is masked", "topk_2 was not fused"]),
    ],
)
def test_warnings(reasons: tuple[str | None, ...], op_nodes: int, expected: list[str]) -> None:
    warnings = report(*reasons).warnings(op_nodes)
    assert len(warnings) == len(expected)
    assert all(words in warning for words, warning in zip(expected, warnings, strict=True))


def test_all_fused_is_enough() -> None:
    report(None).check_plugin(1)
    report().check_plugin(4)


def test_anything_less_is_not() -> None:
    with raises("EF352", "1 op nodes", "1 blocks", "it is masked"):
        report(None, "it is masked").check_plugin(1)
    with raises("EF352", "nothing in this graph"):
        report().check_plugin(0)


def test_many_blocks_make_a_message_of_a_few_lines() -> None:
    with raises("EF352", "40 blocks", "and 32 more") as caught:
        report(*["it is masked"] * 40).check_plugin(0)
    assert len(str(caught.value).splitlines()) <= 20
