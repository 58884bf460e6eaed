"""What the messages of a model say."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgeformer.graph.protos import captured_names, label


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
