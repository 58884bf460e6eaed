"""What the messages of a model say."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgeformer.graph.protos import captured_names, fed_inputs, is_standard, label, subgraphs, tensor_bytes


def test_what_subgraphs_read_counts() -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["a", "inner"], ["sum"])],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, None)],
        [helper.make_tensor("inner", TensorProto.FLOAT, [1], [1.0])],
    )
    node = helper.make_node("If", ["c"], ["out"], then_branch=branch, else_branch=branch)
    assert set(captured_names(node)) == {"a"}


def test_labels() -> None:
    assert label(helper.make_node("Relu", ["x"], ["y"], name="relu")) == "relu"
    assert label(onnx.helper.make_node("Relu", ["x"], ["y"])) == "y"


def test_subgraphs_of_a_node() -> None:
    inner = helper.make_graph([], "inner", [], [])
    branch = helper.make_graph(
        [helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner)], "then", [], []
    )
    node = helper.make_node("If", ["c"], [], then_branch=branch, else_branch=inner)
    assert sorted(graph.name for graph in subgraphs(node)) == ["inner", "then"]
    assert [graph.name for graph in subgraphs(helper.make_node("X", [], [], bodies=[branch, inner]))] == [
        "then",
        "inner",
    ]
    assert list(subgraphs(helper.make_node("Relu", ["x"], ["y"]))) == []


def test_inputs_with_an_initializer_are_not_fed() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "w")]
    graph = helper.make_graph([], "graph", values, [], [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])])
    assert [value.name for value in fed_inputs(graph)] == ["x"]


def test_both_names_of_the_standard_domain_count() -> None:
    assert is_standard(helper.make_node("Relu", ["x"], ["y"]), "Relu")
    assert is_standard(helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx"), "Exp", "Relu")
    assert not is_standard(helper.make_node("Relu", ["x"], ["y"], domain="mine"), "Relu")


def test_bytes_of_a_tensor_do_not_depend_on_where_its_data_is() -> None:
    assert tensor_bytes(helper.make_tensor("t", TensorProto.FLOAT16, [3, 5], [0.0] * 15)) == 30
    assert tensor_bytes(onnx.TensorProto(dims=[2, 7], data_type=TensorProto.INT64)) == 112
    assert tensor_bytes(onnx.TensorProto(data_type=TensorProto.FLOAT)) == 4
    # Two of four bits share a byte, the last of an odd number has one to itself.
    assert tensor_bytes(onnx.TensorProto(dims=[3, 5], data_type=TensorProto.INT4)) == 8
    assert tensor_bytes(onnx.TensorProto(dims=[3, 5], data_type=TensorProto.FLOAT8E4M3FN)) == 15
