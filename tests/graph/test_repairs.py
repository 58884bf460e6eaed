"""Names become unique and types true; a graph that is in order is returned itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgeformer.graph.repairs import with_true_types, with_unique_node_names
from edgeformer.graph.shape_inference import infer_values
from edgeformer.runtime import OnnxSession
from tests.raising import raises


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N,4] x) => (float[N,4] y) <float[N,4] a>'
        "{ [first] a = Relu(x) [second] y = Neg(a) }"
    )


def test_a_graph_in_order_is_returned_itself(model: onnx.ModelProto) -> None:
    assert with_unique_node_names(model) is model
    assert with_true_types(model) is model
    for node in model.graph.node:
        node.name = ""
    assert with_unique_node_names(model) is model


def test_nodes_named_alike(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = "node"
    model.graph.node.append(helper.make_node("Identity", ["y"], ["z"], name="node_2"))
    named = with_unique_node_names(model)
    assert [node.name for node in named.graph.node] == ["node", "node_3", "node_2"]
    assert [node.name for node in model.graph.node] == ["node", "node", "node_2"]
    onnxruntime.InferenceSession(named.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_stale_batch_in_value_info_and_output(model: onnx.ModelProto) -> None:
    model.graph.value_info[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    true = with_true_types(model)
    assert not true.graph.value_info
    assert true.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_name_for_a_size_that_is_fixed(model: onnx.ModelProto) -> None:
    """The old exporter makes up names where its shape inference ends. Those of free sizes are the user's, and stay."""
    batch, channels = model.graph.output[0].type.tensor_type.shape.dim
    batch.dim_param, channels.dim_param = "images", "Transpose_dim_1"
    true = with_true_types(model).graph.output[0].type.tensor_type.shape.dim
    assert (true[0].dim_param, true[1].dim_value) == ("images", 4)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.INT64])
def test_wrong_types_in_value_info_and_output(model: onnx.ModelProto, kind: int) -> None:
    model.graph.value_info[0].type.tensor_type.elem_type = kind
    model.graph.output[0].type.tensor_type.elem_type = kind
    true = with_true_types(model)
    assert true.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    x = np.ones((2, 4), np.float32)
    with OnnxSession(true) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], -x)


@pytest.mark.parametrize("field", ["type", "shape"])
def test_an_output_without_a_type_or_shape(model: onnx.ModelProto, field: str) -> None:
    value = model.graph.output[0]
    value.ClearField("type") if field == "type" else value.type.tensor_type.ClearField("shape")
    kind = with_true_types(model).graph.output[0].type.tensor_type
    assert kind.elem_type == TensorProto.FLOAT
    assert [axis.dim_param or axis.dim_value for axis in kind.shape.dim] == ["N", 4]


def test_an_output_whose_type_nobody_knows(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "other"
    model.opset_import.append(helper.make_opsetid("other", 1))
    model.graph.output[0].ClearField("type")
    with raises("EF306", "'y'"):
        with_true_types(model)


def test_a_wrong_type_noted_of_a_weight(model: onnx.ModelProto) -> None:
    """As a converter of types leaves it; inference fails where the weight is an initializer."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    model.graph.node.add(op_type="Mul", input=["y", "w"], output=["z"])
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4]))
    assert with_true_types(model) is model
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT16, [4]))
    with pytest.raises(onnx.shape_inference.InferenceError):
        infer_values(model)
    true = with_true_types(model)
    assert not true.graph.value_info
    assert infer_values(true)["z"].type.tensor_type.elem_type == TensorProto.FLOAT
