"""Functions and later operators become their nodes, and the graph still computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgeformer.graph.functions import lower_new_ops, without_functions
from edgeformer.graph.opset import model_opset
from tests.graph.graphs import evaluated
from tests.raising import raises

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)


def of(model_opset: int, function_opset: int, body: str, shape: str = "2,3", *, inner: str = "") -> onnx.ModelProto:
    """``y = A(relu(x))`` with A at an opset of its own."""
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {model_opset}, "f": 1]>'
        f"g (float[2,3] x) => (float[{shape}] y) {{ z = Relu(x) y = f.A(z) }}"
        f'<domain: "f", opset_import: ["": {function_opset}, "f": 1]> A (x) => (y) {{ {body} }} {inner}'
    )


@pytest.mark.parametrize(
    ("model", "expected", "opset"),
    [
        # The operator is the same at both: nothing to convert.
        (of(20, 18, "y = Softplus(x)"), np.log1p(np.exp(np.maximum(X, 0))), 20),
        # The axes moved from an attribute to an input at opset 13.
        (of(20, 12, "y = ReduceSum<axes=[1], keepdims=1>(x)", "2,1"), np.maximum(X, 0).sum(1, keepdims=True), 20),
        # ReduceSum of 13 does not exist at 12: the model goes up.
        (
            of(12, 13, "a = Constant<value = int64[1] {1}>() y = ReduceSum<keepdims=1>(x, a)", "2,1"),
            np.maximum(X, 0).sum(1, keepdims=True),
            13,
        ),
    ],
    ids=["same operator", "function older", "function newer"],
)
def test_a_function_of_another_opset(model: onnx.ModelProto, expected: np.ndarray, opset: int) -> None:
    plain = without_functions(model)

    assert not plain.functions
    assert model_opset(plain) == opset
    onnx.checker.check_model(plain)
    np.testing.assert_allclose(evaluated(plain, {"x": X}), expected, rtol=1e-6)


def test_a_model_without_functions_is_returned_itself() -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    assert without_functions(model) is model
    assert lower_new_ops(model) is model


def test_a_function_that_calls_itself() -> None:
    with raises("EF344", "f::A"):
        without_functions(of(20, 20, "y = f.A(x)"))


def test_functions_that_become_too_many_nodes() -> None:
    """Each of 40 functions calls the next one twice."""
    levels = "".join(
        f'<domain: "f", opset_import: ["": 20, "f": 1]> A{i} (x) => (y) {{ t = f.A{i + 1}(x) y = f.A{i + 1}(t) }}'
        for i in range(40)
    )
    last = '<domain: "f", opset_import: ["": 20]> A40 (x) => (y) { y = Relu(x) }'
    with raises("EF344", 2**40 + 1, 1_000_000):
        without_functions(of(20, 20, "y = f.A0(x)", inner=levels + last))


def one_node(
    op_type: str,
    shapes: dict[str, list[int]],
    output: list[int],
    *,
    opset: int = 23,
    constants: dict[str, np.ndarray] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    constants = constants or {}
    graph = helper.make_graph(
        [helper.make_node(op_type, [*shapes, *constants], ["y"], name="new", **attributes)],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


QKV = {name: [1, 2, 4, 8] for name in ("q", "k", "v")}
ANGLES = np.random.default_rng(1).uniform(-1, 1, (5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "model",
    [
        one_node("Attention", QKV, [1, 2, 4, 8], scale=0.25),
        one_node("Attention", QKV, [1, 2, 4, 8], is_causal=1),
        one_node("Attention", QKV, [1, 2, 4, 8], opset=24),
        one_node("RMSNormalization", {"x": [2, 8]}, [2, 8], constants={"w": np.full(8, 1.5, np.float32)}, axis=-1),
        one_node("Swish", {"x": [2, 8]}, [2, 8], opset=24, alpha=1.5),
        one_node(
            "RotaryEmbedding",
            {"x": [1, 2, 4, 8]},
            [1, 2, 4, 8],
            constants={"cos": np.cos(ANGLES), "sin": np.sin(ANGLES), "at": np.arange(4, dtype=np.int64)[None]},
        ),
    ],
    ids=["attention", "causal attention", "attention of opset 24", "RMS", "Swish", "rotary"],
)
def test_an_operator_of_a_later_opset_becomes_its_parts(model: onnx.ModelProto) -> None:
    lowered = lower_new_ops(model)

    kinds = {node.op_type for node in lowered.graph.node}
    assert model.graph.node[0].op_type not in kinds
    assert {opset.domain for opset in lowered.opset_import} == {""}
    onnx.checker.check_model(lowered, full_check=True)
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.standard_normal([axis.dim_value for axis in value.type.tensor_type.shape.dim]).astype("f4")
        for value in model.graph.input
    }
    expected = evaluated(model, feeds)
    np.testing.assert_allclose(evaluated(lowered, feeds), expected, rtol=1e-5, atol=1e-6)


def test_layer_normalization_and_gelu_stay() -> None:
    """They are functions for ONNX, too, and TensorRT has operators for them."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2,4] x, float[4] w) => (float[2,4] y) '
        "{ z = LayerNormalization(x, w) y = Gelu(z) }"
    )
    assert lower_new_ops(model) is model
