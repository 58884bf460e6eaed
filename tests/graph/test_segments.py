"""A graph cut into parts computes what it computes whole."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.segments import cut_positions, segments
from edgeformer.runtime import OnnxSession
from tests.graph.precision_graphs import transformer


def layers(model: onnx.ModelProto) -> list[int]:
    return [i for i, node in enumerate(model.graph.node) if node.op_type in ("MatMul", "Conv")]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 100])
def test_parts_in_a_row_are_the_whole(count: int) -> None:
    model = transformer()
    index = GraphIndex(model)
    cuts = cut_positions(index, layers(model), count)
    parts = list(segments(index, cuts))
    assert len(parts) == len(cuts) + 1 <= count
    assert len(parts) == min(count, len(layers(model)))
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    values = {"input": x}
    for part in parts:
        values |= OnnxSession(part.model, optimization="none").run({name: values[name] for name in part.inputs})
    for name, expected in OnnxSession(model, optimization="none").run({"input": x}).items():
        np.testing.assert_array_equal(values[name], expected)
    weights = [tensor.name for part in parts for tensor in part.model.graph.initializer]
    assert set(weights) == {tensor.name for tensor in model.graph.initializer}


def chain(*, unknown: bool = False) -> onnx.ModelProto:
    """Two branches that meet, then a chain; ``unknown``: of a shape that nothing tells."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Abs", ["a"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Neg", ["d"], ["y"]),
    ]
    if unknown:
        nodes[1:1] = [helper.make_node("Reshape", ["a", "shape"], ["a2"])]
        nodes[2].input[0] = nodes[3].input[0] = "a2"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    if unknown:
        inputs.append(helper.make_tensor_value_info("shape", TensorProto.INT64, ["rank"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None if unknown else ["n", 4])]
    return helper.make_model(helper.make_graph(nodes, "graph", inputs, outputs))


def test_cuts_go_where_the_fewest_tensors_cross() -> None:
    # Between the first node and the last one, two tensors live in the branches and one before and behind them.
    index = GraphIndex(chain())
    assert cut_positions(index, [1, 4], 2) == [4]
    assert cut_positions(index, [0, 2], 2) == [1]
    assert cut_positions(index, [1, 2], 2) == [2]
    assert [segment.inputs for segment in segments(index, [2])] == [("x",), ("a", "b")]
    assert [segment.outputs for segment in segments(index, [2])] == [("a", "b"), ("y",)]


def test_nothing_of_unknown_rank_is_cut() -> None:
    index = GraphIndex(chain(unknown=True))
    assert index.shape("a2") is None
    assert cut_positions(index, [0, 5], 2) == [1]
    assert cut_positions(index, [2, 3], 2) == []
