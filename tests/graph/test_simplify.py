"""Constants are folded, what does nothing goes, and the graph computes the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import parser

from edgeformer.graph.simplify import simplified
from tests.graph.graphs import evaluated, ops

X = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)


def graph(body: str, shape: str = "2,6", given: str = "2,6") -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[{given}] x) => (float[{shape}] y) {{ {body} }}'
    )


def result(model: onnx.ModelProto) -> np.ndarray:
    output: np.ndarray = evaluated(model, {"x": X})
    return output


def test_shape_arithmetic_is_folded() -> None:
    model = graph(
        "s = Shape(x) a = Constant<value = int64[1] {3}>() h = Constant<value = int64[1] {2}>()"
        "l = Slice(s, z, o) r = Div(s2, h) n = Concat<axis=0>(l, h, a) y = Reshape(x, n)".replace(
            "l = Slice(s, z, o) r = Div(s2, h)", "z = Constant<value = int64[1] {0}>() l = Gather(s, z)"
        ),
        "2,2,3",
    )
    plain = simplified(model)
    assert ops(plain) == {"Reshape": 1}
    np.testing.assert_array_equal(result(plain), X.reshape(2, 2, 3))


def test_what_does_nothing_goes() -> None:
    model = graph(
        "zero = Constant<value = float[1] {0.0}>() one = Constant<value = float[1] {1.0}>()"
        "yes = Constant<value = bool[1] {1}>() a = Add(x, zero) b = Mul(a, one) c = Cast<to=1>(b) d = Identity(c)"
        "e = Transpose<perm=[0, 1]>(d) n = Neg(e) f = Where(yes, e, n) y = Relu(f)"
    )
    plain = simplified(model)
    assert ops(plain) == {"Relu": 1}
    np.testing.assert_array_equal(result(plain), np.maximum(X, 0))


def test_what_changes_a_shape_or_a_value_stays() -> None:
    model = graph(
        "zero = Constant<value = float[1, 1, 1] {0.0}>() two = Constant<value = float[1] {2.0}>() a = Add(x, zero)"
        "b = Mul(a, two) y = Transpose<perm=[0, 2, 1]>(b)",
        "1,6,2",
    )
    assert ops(simplified(model)) == {"Constant": 2, "Add": 1, "Mul": 1, "Transpose": 1}


def test_a_free_batch_stays_free() -> None:
    model = graph("s = Shape(x) y = Reshape(x, s)", "N,6", "N,6")
    assert ops(simplified(model)) == {"Shape": 1, "Reshape": 1}


def test_large_results_and_random_numbers_are_not_stored() -> None:
    model = graph(
        "n = Constant<value = int64[2] {1024, 1024}>() big = ConstantOfShape<value = float[1] {1.0}>(n)"
        "m = ReduceMax<keepdims=0>(big) r = RandomUniform<shape = [1]>() a = Add(x, r) y = Mul(a, m)"
    )
    assert ops(simplified(model)) == ops(model)
