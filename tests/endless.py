"""Valid ONNX models that never end: when they run, and when their shapes are inferred."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

__all__ = ["behind_endless_loop", "endless_functions", "endless_loop"]

_OPSETS = [helper.make_opsetid("", 18)]
_IMAGE = [1, 3, 32, 32]


def _model(nodes: list[onnx.NodeProto], **more: object) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, _IMAGE)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, _IMAGE)
    graph = helper.make_graph(nodes, "endless", [image], [result], initializer=more.pop("initializer", None))  # type: ignore[arg-type]
    return helper.make_model(graph, opset_imports=_OPSETS, ir_version=9, **more)


def endless_loop(rounds: int = 2**40) -> onnx.ModelProto:
    """A Loop of so many rounds, each of which negates an image of 32 x 32."""
    count = helper.make_tensor("count", TensorProto.INT64, [], [rounds])
    return _model([_loop("x", "y", _IMAGE)], initializer=[count])


def behind_endless_loop(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose input goes through 2 ** 40 rounds of a Loop first."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    (image,) = result.graph.input
    for node in result.graph.node:
        node.input[:] = ["looped" if name == image.name else name for name in node.input]
    shape = [axis.dim_value or axis.dim_param for axis in image.type.tensor_type.shape.dim]
    result.graph.node.insert(0, _loop(image.name, "looped", shape))
    result.graph.initializer.append(helper.make_tensor("count", TensorProto.INT64, [], [2**40]))
    return result


def _loop(source: str, target: str, shape: Sequence[int | str]) -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Neg", ["before"], ["after"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, shape),
        ],
    )
    return helper.make_node("Loop", ["count", "", source], [target], body=body)


def endless_functions(depth: int = 40) -> onnx.ModelProto:
    """Functions of which each calls the one before twice: 2 ** depth nodes to infer shapes for."""
    opsets = [*_OPSETS, helper.make_opsetid("local", 1)]

    def call(level: int, source: str, target: str) -> onnx.NodeProto:
        if level < 0:
            return helper.make_node("Relu", [source], [target])
        return helper.make_node(f"F{level}", [source], [target], domain="local")

    functions = [
        helper.make_function(
            "local", f"F{level}", ["a"], ["c"], [call(level - 1, "a", "b"), call(level - 1, "b", "c")], opsets
        )
        for level in range(depth)
    ]
    model = _model([call(depth - 1, "x", "y")], functions=functions)
    model.opset_import.append(opsets[1])
    return model
