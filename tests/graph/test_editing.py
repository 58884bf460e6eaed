"""Dropping what nobody reads, and free names."""

from __future__ import annotations

from onnx import TensorProto, helper

from edgeformer.graph.editing import remove_unused, unique_names


def test_what_nobody_reads_goes() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Add", ["x", "w"], ["dead"]),
            helper.make_node("Neg", ["dead"], ["deader"]),
            helper.make_node("Add", ["a", "v"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in ("w", "v")],
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "dead")],
    )
    model = helper.make_model(graph)
    remove_unused(model)
    assert [node.output[0] for node in model.graph.node] == ["a", "y"]
    assert [tensor.name for tensor in model.graph.initializer] == ["v"]
    assert [value.name for value in model.graph.value_info] == ["a"]


def test_names_are_given_once() -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "graph", [], [])
    name = unique_names(helper.make_model(graph))
    assert [name("y"), name("y"), name("relu"), name("free"), name("free")] == [
        "y_2",
        "y_3",
        "relu_2",
        "free",
        "free_2",
    ]
