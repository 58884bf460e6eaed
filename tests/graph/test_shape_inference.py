"""Shape inference without the weights finds what it finds with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.fuse import fuse
from edgeformer.graph.shape_inference import infer_values, skeleton
from edgeformer.ops import bi_level_routing_attention as bra
from tests.graph.graphs import REFERENCE, constants_as_nodes, reference_graph
from tests.graph.precision_graphs import transformer

NAMES = sorted(path.name.removesuffix(".onnx.gz") for path in REFERENCE.glob("*.onnx.gz"))


def with_weights(model: onnx.ModelProto, *, data_prop: bool) -> dict[str, onnx.ValueInfoProto]:
    """What inference over the whole model finds, initializers left out."""
    if any(bra.is_op(node) for node in model.graph.node):
        model = bra.with_function(model)
    graph = onnx.shape_inference.infer_shapes(model, data_prop=data_prop).graph
    weights = {tensor.name for tensor in model.graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value for value in values if value.name not in weights}


def assert_same(model: onnx.ModelProto, *, data_prop: bool) -> None:
    expected = with_weights(model, data_prop=data_prop)
    found = infer_values(model, data_prop=data_prop)
    assert len(expected) > 20
    assert found == expected


@pytest.mark.parametrize("data_prop", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_reference_exports_have_the_same_types_and_shapes(name: str, data_prop: bool) -> None:
    model = reference_graph(name)
    assert_same(model, data_prop=data_prop)
    assert sum(value.type.tensor_type.HasField("shape") for value in infer_values(model).values()) > 100


@pytest.mark.parametrize("data_prop", [False, True])
@pytest.mark.parametrize("change", [lambda model: model, constants_as_nodes, lambda model: fuse(model).model])
def test_built_models_have_the_same_types_and_shapes(
    change: Callable[[onnx.ModelProto], onnx.ModelProto], data_prop: bool
) -> None:
    assert_same(change(transformer()), data_prop=data_prop)


def big_and_small(*, listed: bool) -> onnx.ModelProto:
    """``Reshape(x @ w, [2, 32])``; with ``listed``, as IR version 3 has it, initializers are inputs, too."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Reshape", ["y", "shape"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((64, 64), np.float32), "w"),
            numpy_helper.from_array(np.array([2, 32]), "shape"),
        ],
    )
    if listed:
        graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["rows", "columns"]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=3 if listed else 8)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("as_nodes", [False, True])
def test_a_skeleton_has_small_tensors_and_no_weights(listed: bool, as_nodes: bool) -> None:
    model = big_and_small(listed=listed)
    if as_nodes:
        model = constants_as_nodes(model)
        del model.graph.input[1:]
    before = model.SerializeToString()
    bare = skeleton(model)
    assert len(bare.SerializeToString()) < 500 < 64 * 64 * 4 < len(before)
    assert [value.name for value in bare.graph.input] == ["x", "w"]
    found = infer_values(model)
    assert found == with_weights(model, data_prop=False)
    assert [dim.dim_value for dim in found["z"].type.tensor_type.shape.dim] == [2, 32]
    assert model.SerializeToString() == before


def test_a_skeleton_is_a_snapshot() -> None:
    model = big_and_small(listed=False)
    bare = skeleton(model)
    model.graph.node[0].op_type = "Gemm"
    assert bare.graph.node[0].op_type == "MatMul"


@pytest.mark.parametrize("notes", ["input", "value_info"])
def test_a_declaration_that_contradicts_a_weight_is_an_error(notes: str) -> None:
    """ONNX Runtime's FP16 converter leaves such."""
    model = big_and_small(listed=False)
    getattr(model.graph, notes).append(helper.make_tensor_value_info("w", TensorProto.FLOAT16, [64, 64]))
    for infer in (onnx.shape_inference.infer_shapes, infer_values):
        with pytest.raises(onnx.shape_inference.InferenceError):
            infer(model)
