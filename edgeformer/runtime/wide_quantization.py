"""Quantize FP16 values as a GPU does, in an ONNX Runtime whose QuantizeLinear does not.

TensorRT, and ONNX Runtime from `ROUNDS_SINCE` on, round to the nearest integer, ties to even. Before, ONNX Runtime's
CPU provider cut off the fraction of FP16 values, and of those alone.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx.helper import make_node

__all__ = ["ROUNDS_SINCE", "cuts_off", "quantizes", "with_wide_quantization"]

# Tried with 1.23 to 1.32: tests/runtime/test_wide_quantization.py tries the one that is here.
ROUNDS_SINCE = (1, 30)


def cuts_off(version: str) -> bool:
    """Whether ONNX Runtime of this version, such as "1.23.2", cuts off FP16 values."""
    return tuple(int(part) for part in version.split(".")[:2]) < ROUNDS_SINCE


def quantizes(model: ModelProto) -> bool:
    """Whether there is a QuantizeLinear anywhere in the model."""
    return any(node.op_type == "QuantizeLinear" for nodes in _node_lists(model) for node in nodes)


def with_wide_quantization(model: ModelProto) -> ModelProto:
    """A copy whose QuantizeLinear nodes take FP32, which holds each FP16 value: equal results, rounded to nearest."""
    result = ModelProto()
    result.CopyFrom(model)
    for nodes in _node_lists(result):
        before = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del nodes[:]
        for node in before:
            if node.op_type == "QuantizeLinear":
                for index in range(2):  # the values and their scale
                    wide = f"{node.output[0]}::wide{index}"
                    nodes.append(make_node("Cast", [node.input[index]], [wide], name=wide, to=TensorProto.FLOAT))
                    node.input[index] = wide
            nodes.append(node)
    return result


def _node_lists(model: ModelProto) -> Iterator[MutableSequence[NodeProto]]:
    """The nodes of the graph, of graphs inside it and of functions."""
    yield from _lists_of(model.graph)
    for function in model.functions:
        yield function.node
        yield from _inner(function.node)


def _lists_of(graph: GraphProto) -> Iterator[MutableSequence[NodeProto]]:
    yield graph.node
    yield from _inner(graph.node)


def _inner(nodes: MutableSequence[NodeProto]) -> Iterator[MutableSequence[NodeProto]]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                yield from _lists_of(graph)
