"""Bringing a graph's nodes into the order that ONNX asks for."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.protos import captured_names, describe

__all__ = ["in_topological_order", "sort_nodes"]


def in_topological_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with every node behind those whose outputs it reads.

    ONNX asks for this order, but ONNX Runtime does not and some tools (its FP16 converter) do not keep it. Nodes move
    no further than they have to. The model itself is returned where its order is right, else a copy.

    Raises:
        InputError: the graph has a cycle.
    """
    order = _order(model.graph.node)
    if order == sorted(order):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _rearrange(result, order)
    return result


def sort_nodes(model: onnx.ModelProto, early: int = 0) -> None:
    """Bring the nodes, in place, into the order of `in_topological_order`.

    Args:
        model: the model.
        early: how many nodes at the end of the list are to come as soon as their inputs are there, so that what a side
            branch reads need not be kept for it.

    Raises:
        InputError: the graph has a cycle.
    """
    order = _order(model.graph.node, early)
    if order != sorted(order):
        _rearrange(model, order)


def _rearrange(model: onnx.ModelProto, order: Sequence[int]) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in order)


def _order(nodes: Sequence[onnx.NodeProto], early: int = 0) -> list[int]:
    """Positions of the nodes: of those whose inputs are there the last ``early`` ones first, then the lowest."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [
        {producer[name] for name in (*node.input, *captured_names(node)) if name in producer} - {index}
        for index, node in enumerate(nodes)
    ]
    readers: list[list[int]] = [[] for _ in nodes]
    for index, others in enumerate(needs):
        for other in others:
            readers[other].append(index)
    missing = [len(others) for others in needs]
    late = len(nodes) - early
    ready = [(index < late, index) for index, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, (reader < late, reader))
    if len(order) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise InputError("EF302", f"the graph has a cycle: {describe(stuck)} needs its own output")
    return order
