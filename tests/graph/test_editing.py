"""Dropping what nobody reads, and free names."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from edgeformer.graph.editing import complete, draft, remove_unused, unique_names, with_nodes, without_unused


def model_with_dead_ends() -> ModelProto:
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
    model = helper.make_model(graph, producer_name="test")
    model.metadata_props.add(key="k", value="v")
    return model


def test_what_nobody_reads_goes() -> None:
    model = model_with_dead_ends()
    remove_unused(model)
    assert [node.output[0] for node in model.graph.node] == ["a", "y"]
    assert [tensor.name for tensor in model.graph.initializer] == ["v"]
    assert [value.name for value in model.graph.value_info] == ["a"]
    assert without_unused(model) is model


def test_a_model_with_dead_ends_is_copied_without_them() -> None:
    model, expected = model_with_dead_ends(), model_with_dead_ends()
    remove_unused(expected)
    assert without_unused(model) == expected
    assert model == model_with_dead_ends()


def test_a_draft_holds_all_but_the_weights_and_is_completed() -> None:
    model, expected = model_with_dead_ends(), model_with_dead_ends()
    remove_unused(expected)
    made = draft(model)
    assert not made.graph.initializer
    complete(made, model)
    assert made == expected


def test_new_initializers_come_last_and_replace_those_of_their_name() -> None:
    model = model_with_dead_ends()
    nodes = [helper.make_node("Sum", ["x", "new", "w", "v"], ["y"])]
    made = [helper.make_tensor(name, TensorProto.FLOAT, [1], [2.0]) for name in ("w", "new", "unread")]
    result = with_nodes(model, nodes, made)
    assert [(tensor.name, tensor.float_data[0]) for tensor in result.graph.initializer] == [
        ("v", 1.0),
        ("w", 2.0),
        ("new", 2.0),
    ]
    assert [(entry.key, entry.value) for entry in result.metadata_props] == [("k", "v")]
    assert result.producer_name == "test"
    assert model == model_with_dead_ends()


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
