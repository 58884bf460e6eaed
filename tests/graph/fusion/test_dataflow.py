"""Which tensors carry data, and who dominates whom."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from edgeformer.graph.fusion.dataflow import Dataflow


def flow_of(*lines: str, outputs: tuple[str, ...] = ("out",)) -> Dataflow:
    """A graph with input ``x`` from lines like ``"Add a b -> c"``."""
    nodes = []
    for number, line in enumerate(lines):
        left, right = line.split(" -> ")
        op, *inputs = left.split()
        attributes: dict[str, Any] = {"to": TensorProto.FLOAT} if op == "Cast" else {}
        nodes.append(helper.make_node(op, inputs, right.split(), name=f"n{number}", **attributes))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])],
    )
    return Dataflow(helper.make_model(graph))


def test_what_shapes_settle_is_static() -> None:
    flow = flow_of("Shape x -> s", "Mul s s -> t", "Relu x -> r", "Reshape r t -> out", "Add w w -> ww")
    assert {"w", "s", "t", "ww"} <= flow.static
    assert not {"x", "r", "out"} & flow.static
    assert flow.data_inputs(3) == ["r"]
    assert flow.data_inputs(0) == []


def test_random_numbers_are_not_static() -> None:
    assert "r" not in flow_of("RandomNormalLike w -> r", "Add x r -> out").static


def test_dominators_of_a_diamond() -> None:
    flow = flow_of("Relu x -> a", "Neg a -> b", "Exp a -> c", "Add b c -> d", "Abs d -> e", "Add e b -> out")
    assert [flow.dominator(name) for name in ("a", "b", "d", "e", "out", "x")] == ["x", "a", "a", "d", "a", None]


def test_asking_for_a_shape_is_no_reading() -> None:
    flow = flow_of("Relu x -> a", "Shape a -> s", "Neg a -> b", "Reshape b s -> out")
    assert flow.readers("a") == [2]


def test_nodes_whose_data_nobody_needs_are_no_readers() -> None:
    """Dead ones, and those that only lend their shape."""
    flow = flow_of("Relu x -> a", "Max a a -> m", "Shape m -> s", "Exp a -> dead", "Neg a -> b", "Reshape b s -> out")
    assert flow.readers("a") == [4]


def test_between_is_the_data_paths_only() -> None:
    flow = flow_of("Relu x -> a", "Neg a -> b", "Exp x -> c", "Add b c -> d", "Abs a -> e", "Add d e -> out")
    assert flow.between("a", ["d"]) == [1, 3]
    assert flow.between("a", ["out"]) == [1, 3, 4, 5]
    assert flow.between("d", ["d"]) == []
    assert flow.between("c", ["e"]) == []


@pytest.mark.parametrize(
    ("line", "source"),
    [("Reshape a s -> out", "a"), ("Cast a -> out", "a"), ("Identity a -> out", "a"), ("Neg a -> out", None)],
)
def test_view_source(line: str, source: str | None) -> None:
    flow = flow_of("Relu x -> a", "Shape x -> s", line)
    assert flow.view_source(2) == source


def test_a_reshape_to_a_computed_size_is_no_view() -> None:
    flow = flow_of("Relu x -> a", "Neg x -> s", "Reshape a s -> out")
    assert flow.view_source(2) is None
