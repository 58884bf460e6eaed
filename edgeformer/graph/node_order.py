"""Bringing a graph's nodes into the order that ONNX asks for."""

from __future__ import annotations

import heapq

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.protos import describe

__all__ = ["in_topological_order", "sort_nodes"]


def in_topological_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with every node behind those whose outputs it reads.

    ONNX asks for this order, but ONNX Runtime does not and some tools (its FP16 converter) do not keep it. Nodes move
    no further than they have to. The model itself is returned where its order is right, else a copy.

    Raises:
        InputError: nodes read each other's outputs in a circle.
    """
    nodes = list(model.graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [
        {producer[name] for name in _reads(node) if name in producer} - {index} for index, node in enumerate(nodes)
    ]
    if all(other < index for index, others in enumerate(needs) for other in others):
        return model
    readers: list[list[int]] = [[] for _ in nodes]
    for index, others in enumerate(needs):
        for other in others:
            readers[other].append(index)
    missing = [len(others) for others in needs]
    ready = [index for index, count in enumerate(missing) if count == 0]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise InputError(f"the graph has a circle: {stuck.op_type} {stuck.name!r} needs its own output")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes[index] for index in order)
    return result


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put the nodes, in place, in an order in which every tensor is made before it is read; else as they were.

    Raises:
        InputError: the graph has a cycle.
    """
    waiting = list(model.graph.node)
    made = {name for node in waiting for name in node.output if name}
    ready: list[onnx.NodeProto] = []
    while waiting:
        late = []
        for node in waiting:
            if any(name in made for name in node.input):
                late.append(node)
            else:
                ready.append(node)
                made.difference_update(node.output)
        if len(late) == len(waiting):
            raise InputError(f"the graph has a cycle through {describe(late[0])}")
        waiting = late
    del model.graph.node[:]
    model.graph.node.extend(ready)


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, names that its sub-graphs take from outside among it."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            names += [name for inner in graph.node for name in _reads(inner)]
            names += [value.name for value in graph.output]
    return names
