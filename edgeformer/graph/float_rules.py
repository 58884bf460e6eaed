"""Which nodes of a graph compute in FP32 although the graph as a whole is FP16 or BF16.

Six reasons, each found in the graph's structure and never in its names:

* the operator itself loses too much: sums of squares overflow FP16, exp and pow overflow, a softmax over BF16 logits
  keeps three digits;
* a normalization that an exporter wrote out (ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div): its statistics;
* routing: what lies between the region means and TopK, because near-ties flip regions in 16 bits;
* ``1 + erf(x)``: the sum cancels on the negative side of a GELU that was written out;
* the normalization of an input that takes whole pixel values: each of its steps would be rounded;
* masks of attention: -1e9 in the logits of what is not attended to is beyond FP16, and -inf in its place gives NaN
  where a row has nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute, fed_inputs, is_standard, scalar

__all__ = ["float32_nodes", "mask_nodes", "routing_nodes"]

_FLOAT32_OPS = frozenset(
    {
        "BatchNormalization",
        "CumSum",
        "Erf",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Sqrt",
        "TopK",
    }
)
_MEANS = frozenset({"ReduceMean", "ReduceSum"})
_POOLS = _MEANS | {"AveragePool", "GlobalAveragePool", "ReduceMax", "MaxPool", "GlobalMaxPool"}
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
_MOVES = ("Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
# What may stand between the pooled queries and keys and the TopK.
_ROUTING_OPS = frozenset(
    {
        "Add",
        "Cast",
        "Div",
        "Einsum",
        "Flatten",
        "Gemm",
        "Identity",
        "MatMul",
        "Mul",
        "Reshape",
        "Slice",
        "Softmax",
        "Split",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    }
)

# What may stand between a mask and the softmax whose logits it is part of.
_MASK_OPS = frozenset(
    {
        "Add",
        "Cast",
        "Expand",
        "Flatten",
        "Identity",
        "Max",
        "Min",
        "Mul",
        "Reshape",
        "Slice",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)


def mask_nodes(index: GraphIndex, largest: float) -> set[str]:
    """The nodes that bring a constant beyond a 16-bit type into the logits of a softmax, down to that softmax.

    Args:
        index: the graph.
        largest: magnitude that the type holds.

    Returns:
        The nodes, each named by its first output.
    """
    nodes = index.model.graph.node
    behind = {node.input[0] for node in nodes if is_standard(node, "Softmax", "LogSoftmax")}
    for node in reversed(nodes):
        if not behind.isdisjoint(node.output) and _passes_masks(node):
            behind.update(node.input)
    beyond = {name for name in behind if index.is_float(name) and _reaches(index.array(name), largest)}
    chosen = set()
    for node in nodes:
        if not behind.isdisjoint(node.output) and not beyond.isdisjoint(node.input) and _passes_masks(node):
            beyond.update(node.output)
            chosen.add(node.output[0])
    return chosen


def _reaches(constant: npt.NDArray[Any] | None, largest: float) -> bool:
    if constant is None:
        return False
    wide = constant.astype(np.float32)
    return bool((np.abs(wide[np.isfinite(wide)]) > largest).any())


def _passes_masks(node: onnx.NodeProto) -> bool:
    return is_standard(node, *_MASK_OPS) and not (node.op_type == "Cast" and attribute(node, "to") != TensorProto.FLOAT)


def float32_nodes(index: GraphIndex) -> set[str]:
    """The nodes that stay in FP32, each named by its first output."""
    chosen = {node.output[0] for node in index.model.graph.node if node.op_type in _FLOAT32_OPS}
    chosen |= routing_nodes(index) | _pixel_arithmetic(index)
    for node in index.model.graph.node:
        if _is_root(index, node):
            chosen |= _normalization(index, node)
        elif node.op_type == "Add" and len(index.data_inputs(node)) == 1:
            source = index.producer.get(index.data_inputs(node)[0])
            if source is not None and source.op_type == "Erf":
                chosen.add(node.output[0])
    return chosen


def routing_nodes(index: GraphIndex) -> set[str]:
    """The nodes from the pooled queries and keys (pooling included) to every TopK, each named by its first output.

    A TopK that nothing pooled leads to, such as one over class scores, routes nothing: it is not in the set.
    """
    chosen: set[str] = set()
    for node in index.model.graph.node:
        if node.op_type != "TopK":
            continue
        region = _upstream(index, node)
        pooled = {name for name in region if index.producer[name].op_type in _POOLS}
        # Of the nodes that lead to TopK only those count that a pool leads to: the rest came along a residual.
        frontier = list(pooled)
        path = set(pooled)
        while frontier:
            for reader in _readers(index, index.producer[frontier.pop()]):
                name = reader.output[0]
                if name in region and name not in path:
                    path.add(name)
                    frontier.append(name)
        if path:
            chosen |= path | {node.output[0]}
    return chosen


def _pixel_arithmetic(index: GraphIndex) -> set[str]:
    """Arithmetic with constants behind the Cast of an input of integers, up to the first node that does more."""
    inputs = {value.name for value in fed_inputs(index.model.graph)}
    behind: set[str] = set()
    chosen = set()
    for node in index.model.graph.node:
        if is_standard(node, "Cast"):
            if node.input[0] in inputs and not index.is_float(node.input[0]) and index.is_float(node.output[0]):
                behind.add(node.output[0])
        elif len(index.data_inputs(node)) == 1 and index.data_inputs(node)[0] in behind:
            if is_standard(node, *_ARITHMETIC):
                chosen.add(node.output[0])
                behind.add(node.output[0])
            elif is_standard(node, *_MOVES):
                behind.add(node.output[0])
    return chosen


def _upstream(index: GraphIndex, topk: onnx.NodeProto) -> set[str]:
    """Everything before a TopK, up to and including the pools and up to the first operator that is not routing."""
    seen: set[str] = set()
    frontier = [topk.input[0]]
    while frontier:
        node = index.producer.get(frontier.pop())
        if node is None or node.output[0] in seen or node.op_type == "Constant":
            continue
        if node.op_type in _POOLS:
            seen.add(node.output[0])
        elif node.op_type in _ROUTING_OPS:
            seen.add(node.output[0])
            frontier.extend(name for name in node.input if name)
    return seen


def _readers(index: GraphIndex, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
    return (reader for name in node.output for reader in index.consumers.get(name, []))


def _is_root(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether the node takes a square root: Sqrt, or Pow with exponent 0.5 or -0.5."""
    if node.op_type == "Pow":
        exponent = scalar(index.array(node.input[1]))
        return exponent is not None and abs(exponent) == 0.5
    return node.op_type == "Sqrt"


def _normalization(index: GraphIndex, root: onnx.NodeProto) -> set[str]:
    """The chain of a written-out normalization around its square root, or nothing where the root is of another kind."""
    chain = {root.output[0]}
    frontier = [root.input[0]]
    statistics = index.is_constant(root.input[0])
    while frontier:
        node = index.producer.get(frontier.pop())
        if node is None or node.output[0] in chain:
            continue
        variable = index.data_inputs(node)
        if node.op_type in _MEANS:
            statistics = True
            inner = index.producer.get(node.input[0])
            if inner is not None and (inner.op_type in ("Pow", "Sub") or _is_square(inner)):
                frontier.append(node.input[0])
        elif node.op_type == "Sub":
            # x - mean(x): the mean belongs to the chain, x does not.
            frontier.extend(name for name in node.input if _made_by(index, name, _MEANS))
        elif node.op_type in ("Pow", "Abs") or _is_square(node):
            frontier.append(node.input[0])
        elif node.op_type in ("Add", "Max", "Clip", "Identity") and len(variable) <= 1:
            frontier.extend(variable)
            statistics = statistics or not variable
        else:
            continue
        chain.add(node.output[0])
    if not statistics:
        return set()
    # Forward: x / sqrt(var), or x * (1 / sqrt(var)); and the x - mean that is divided.
    for reader in _readers(index, root):
        users = list(_readers(index, reader)) if reader.op_type == "Reciprocal" else [reader]
        for user in users:
            if user.op_type in ("Div", "Mul"):
                chain.add(user.output[0])
                chain.update(name for name in user.input if _made_by(index, name, {"Sub"}))
    return chain


def _is_square(node: onnx.NodeProto) -> bool:
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def _made_by(index: GraphIndex, name: str, op_types: Iterable[str]) -> bool:
    node = index.producer.get(name)
    return node is not None and node.op_type in op_types
