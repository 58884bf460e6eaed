from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.ops.bi_level_routing_attention import Attributes, reference, with_function
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.bfloat16 import has_bfloat16, with_bfloat16_rounding
from tests.raising import raises

BF16 = ml_dtypes.bfloat16


def build(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[TensorProto] = (),
    x_type: int = TensorProto.FLOAT,
    y_type: int = TensorProto.FLOAT,
    opset: int = 20,
    shape: Sequence[int] = (2, 5),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "half",
        [helper.make_tensor_value_info("x", x_type, list(shape))],
        [helper.make_tensor_value_info("y", y_type, None)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def bf16_weight(array: np.ndarray, name: str) -> TensorProto:
    tensor = helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.astype(BF16).tobytes(), raw=True)
    np.testing.assert_array_equal(
        numpy_helper.to_array(tensor).astype(np.float32), array.astype(BF16).astype(np.float32)
    )
    return tensor


def product() -> tuple[onnx.ModelProto, np.ndarray]:
    weight = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["xh"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["xh", "w"], ["p"]),
        helper.make_node("Add", ["p", "p"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    return build(nodes, [bf16_weight(weight, "w")]), weight


def test_every_value_is_rounded() -> None:
    model, weight = product()
    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)
    y = OnnxSession(model).run({"x": x})["y"]
    exact = x.astype(BF16).astype(np.float32) @ weight.astype(BF16).astype(np.float32)
    rounded = exact.astype(BF16).astype(np.float32)
    assert np.abs(exact - rounded).max() > 1e-4, "rounding the product has to change something"
    np.testing.assert_array_equal(y, 2 * rounded)


@pytest.mark.parametrize("optimization", ["none", "all"])
def test_no_optimization_removes_the_rounding(optimization: Any) -> None:
    model, _ = product()
    x = np.full((2, 5), 1.0 + 2.0**-9, np.float32)  # rounds to 1 in bfloat16
    y = OnnxSession(model, optimization=optimization).run({"x": x})["y"]
    np.testing.assert_array_equal(y, OnnxSession(model).run({"x": np.ones((2, 5), np.float32)})["y"])


def test_a_file_and_bfloat16_inputs_and_outputs(tmp_path: Path) -> None:
    model = build([helper.make_node("Neg", ["x"], ["y"])], x_type=TensorProto.BFLOAT16, y_type=TensorProto.BFLOAT16)
    onnx.save_model(model, tmp_path / "m.onnx")
    session = OnnxSession(tmp_path / "m.onnx")
    assert session.inputs["x"].dtype == np.float32
    x = np.full((2, 5), 1.0 + 2.0**-9, np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], -np.ones((2, 5), np.float32))


def test_float32_stays_float32() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["h"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["w", "third"], ["y"]),
    ]
    third = numpy_helper.from_array(np.array(1 / 3, np.float32), "third")
    y = OnnxSession(build(nodes, [third])).run({"x": np.ones((2, 5), np.float32)})["y"]
    assert (y == np.float32(1 / 3)).all()


def test_constants_are_converted() -> None:
    value = bf16_weight(np.array(3.0, np.float32), "three")
    nodes = [
        helper.make_node("Constant", [], ["three"], value=value),
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        helper.make_node("Mul", ["h", "three"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    y = OnnxSession(build(nodes)).run({"x": np.full((2, 5), 2.0, np.float32)})["y"]
    np.testing.assert_array_equal(y, np.full((2, 5), 6.0, np.float32))


def test_the_ops_body_in_bfloat16() -> None:
    attributes = Attributes(num_heads=2, regions=2, topk=2, qk_dim=16, scale=0.25)
    nodes = [
        helper.make_node("Cast", ["x"], ["qkv"], to=TensorProto.BFLOAT16),
        attributes.make_node("qkv", "out", "block"),
        helper.make_node("Cast", ["out"], ["y"], to=TensorProto.FLOAT),
    ]
    model = with_function(build(nodes, shape=(1, 6, 4, 48)))
    qkv = np.random.default_rng(2).standard_normal((1, 6, 4, 48)).astype(np.float32)
    y = OnnxSession(model).run({"x": qkv})["y"]
    want = reference(qkv.astype(BF16).astype(np.float64), attributes)
    assert (y == y.astype(BF16).astype(np.float32)).all(), "the output holds bfloat16 values"
    # Attention in bfloat16: a few roundings of relative 2^-8 each.
    np.testing.assert_allclose(y, want, atol=4 * 2.0**-8 * np.abs(want).max())
    assert np.abs(y - want).max() > 1e-4


def test_which_models_have_bfloat16() -> None:
    model, _ = product()
    assert has_bfloat16(model)
    assert not has_bfloat16(build([helper.make_node("Neg", ["x"], ["y"])]))
    assert not has_bfloat16(with_bfloat16_rounding(build([helper.make_node("Neg", ["x"], ["y"])])))


def test_subgraphs_are_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16)],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.BFLOAT16, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    with raises("EF808", "If, Loop or Scan", "FP16 or FP32"):
        OnnxSession(build(nodes, y_type=TensorProto.BFLOAT16))


def test_types_that_cannot_be_told() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        helper.make_node("Strange", ["h"], ["y"], domain="nowhere"),
    ]
    model = build(nodes)
    model.graph.output[0].type.ClearField("tensor_type")
    model.opset_import.append(helper.make_opsetid("nowhere", 1))
    with raises("EF306", "'half'", " y ", "value_info"):
        OnnxSession(model)
