"""Sequences of tensors become tensors, and the graph computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from edgeformer.graph.sequences import SEQUENCE_OPS, without_sequences
from edgeformer.graph.simplify import simplified
from tests.graph.graphs import evaluated
from tests.raising import raises

X = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)


def graph(body: str, shape: str, given: str = "2,6") -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[{given}] x) => (float[{shape}] y) {{ {body} }}'
    )


@pytest.mark.parametrize(
    ("body", "shape", "expected"),
    [
        (
            "n = Constant<value = int64[2] {2, 4}>() i = Constant<value = int64 {1}>()"
            "s = SplitToSequence<axis=1>(x, n) y = SequenceAt(s, i)",
            "2,4",
            X[:, 2:],
        ),
        (
            "n = Constant<value = int64 {4}>() i = Constant<value = int64 {-1}>()"
            "s = SplitToSequence<axis=1>(x, n) y = SequenceAt(s, i)",
            "2,2",
            X[:, 4:],
        ),
        (
            "i = Constant<value = int64 {3}>() s = SplitToSequence<axis=1, keepdims=0>(x) y = SequenceAt(s, i)",
            "2",
            X[:, 3],
        ),
        ("a = Neg(x) s = SequenceConstruct(x, a) y = ConcatFromSequence<axis=1>(s)", "2,12", np.hstack([X, -X])),
        (
            "a = Neg(x) s = SequenceConstruct(x, a) t = Identity(s) y = ConcatFromSequence<axis=0, new_axis=1>(t)",
            "2,2,6",
            np.stack([X, -X]),
        ),
        (
            "a = Neg(x) z = Constant<value = int64 {0}>() e = SequenceEmpty() s = SequenceInsert(e, x)"
            "t = SequenceInsert(s, a, z) u = SequenceErase(t) y = SequenceAt(u, z)",
            "2,6",
            -X,
        ),
        (
            "s = SequenceConstruct(x, x, x) n = SequenceLength(s) f = Cast<to=1>(n) y = Mul(x, f)",
            "2,6",
            3 * X,
        ),
    ],
    ids=["sizes", "one size", "no size", "concat", "stack", "edited", "length"],
)
def test_each_way_to_use_a_sequence(body: str, shape: str, expected: np.ndarray) -> None:
    plain = without_sequences(simplified(graph(body, shape)))

    assert not [node for node in plain.graph.node if node.op_type in SEQUENCE_OPS]
    onnx.checker.check_model(plain, full_check=True)
    np.testing.assert_allclose(evaluated(plain, {"x": X}), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "given", "named"),
    [
        (
            "n = Constant<value = int64 {2}>() i = Constant<value = int64 {3}>()"
            "s = SplitToSequence<axis=1>(x, n) y = SequenceAt(s, i)",
            "2,6",
            "position 3",
        ),
        ("i = ReduceMax<keepdims=0>(x) j = Cast<to=7>(i) s = SequenceConstruct(x) y = SequenceAt(s, j)", "2,6", "'j'"),
        (
            "i = Constant<value = int64 {0}>() s = SplitToSequence<axis=1>(x) y = SequenceAt(s, i)",
            "2,N",
            "axis 1",
        ),
        (
            "i = Constant<value = int64 {0}>() s = SplitToSequence<axis=1>(x) y = SequenceAt(s, i)",
            "2,1000000",
            4096,
        ),
    ],
    ids=["out of range", "computed position", "free axis", "too many"],
)
def test_what_cannot_be_written_without(body: str, given: str, named: object) -> None:
    with raises("EF345", named):
        without_sequences(simplified(graph(body, "2,6", given)))
