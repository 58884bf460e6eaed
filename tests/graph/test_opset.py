from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from edgeformer.graph.opset import raise_opset
from tests.raising import raises


def model_of(op_type: str, opset: int) -> ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])]
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_an_operator_that_cannot_be_converted_is_refused_with_the_opset_to_export_at() -> None:
    with raises("EF304", "opset 17", "Nonsense", "Export it at opset 20"):
        raise_opset(model_of("Nonsense", 17), 20)


def test_a_model_without_the_standard_operators_is_refused() -> None:
    model = model_of("Relu", 17)
    del model.opset_import[:]
    with raises("EF302", "operator set"):
        raise_opset(model, 20)
