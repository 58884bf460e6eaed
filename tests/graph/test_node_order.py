"""Sorting a graph's nodes."""

from __future__ import annotations

import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeformer.graph.node_order import in_topological_order, sort_nodes
from tests.raising import raises


def chain(*order: int) -> ModelProto:
    """Relu nodes 0, 1, 2, ... where each reads the one before, in the order given."""
    nodes: list[NodeProto] = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=str(i)) for i in order]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(f"t{len(order)}", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (0, 3, 1, 2)])
def test_every_node_comes_behind_what_it_reads(order: tuple[int, ...]) -> None:
    model = chain(*order)
    before = model.SerializeToString()

    assert [node.name for node in in_topological_order(model).graph.node] == [str(i) for i in range(len(order))]
    assert model.SerializeToString() == before


def test_a_sorted_graph_is_not_copied() -> None:
    model = chain(0, 1, 2)
    assert in_topological_order(model) is model


def test_independent_nodes_keep_their_order() -> None:
    model = chain(1, 0)
    model.graph.node.insert(0, helper.make_node("Relu", ["t0"], ["side"], name="side"))
    model.graph.node.append(helper.make_node("Relu", ["t0"], ["other"], name="other"))

    assert [node.name for node in in_topological_order(model).graph.node] == ["side", "0", "1", "other"]


def test_early_nodes_come_right_behind_what_they_read() -> None:
    model = chain(0, 1, 2)
    for number in (2, 1):
        side = [f"t{number}"]
        for part in "ab":
            node = helper.make_node("Relu", side, [f"{number}{part}"], name=f"{number}{part}")
            model.graph.node.append(node)
            side = [f"{number}{part}"]
    sort_nodes(model, early=4)
    assert [node.name for node in model.graph.node] == ["0", "1a", "1b", "1", "2a", "2b", "2"]


def test_what_a_subgraph_reads_counts() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["t1"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])],
    )
    model = chain(0)
    model.graph.node.insert(0, helper.make_node("If", ["c"], ["o"], name="if", then_branch=branch, else_branch=branch))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))

    assert [node.name for node in in_topological_order(model).graph.node] == ["0", "if"]


def test_a_cycle_is_an_error() -> None:
    model = chain(0, 1)
    model.graph.node[0].input[0] = "t2"
    with raises("EF302", "cycle", "Relu '0'"):
        in_topological_order(model)
