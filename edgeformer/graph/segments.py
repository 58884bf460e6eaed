"""Cutting a graph into parts that run one after another.

Where one graph is run many times and only something late in it changes, what comes before need not run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx
from onnx import helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import is_standard

__all__ = ["Segment", "cut_positions", "segments"]


@dataclass(frozen=True)
class Segment:
    """A part of a graph.

    Attributes:
        model: the part as a model of its own.
        inputs: the tensors it reads that other parts make or the graph is fed.
        outputs: the tensors it makes that later parts read or the graph gives.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def cut_positions(index: GraphIndex, marks: Sequence[int], count: int) -> list[int]:
    """Where to cut a graph into at most ``count`` parts with about as many marked nodes each.

    Between two marked nodes the cut goes where the fewest tensors cross it. A graph is not cut where a tensor of
    unknown type or rank would.

    Args:
        index: of a graph in topological order.
        marks: positions of nodes, ascending.
        count: parts wanted, at least 1.

    Returns:
        Positions of the first node behind each cut, ascending.
    """
    crossing = _crossing(index)
    found = []
    for part in range(1, count):
        number = round(part * len(marks) / count)
        if not 0 < number < len(marks):
            continue
        places = [place for place in range(marks[number - 1] + 1, marks[number] + 1) if crossing[place] is not None]
        if places:
            found.append(min(places, key=lambda place: crossing[place] or 0))
    return sorted(set(found))


def _crossing(index: GraphIndex) -> list[int | None]:
    """How many tensors cross a cut before each node; None where it cannot be made."""
    nodes = index.model.graph.node
    change, unknown = [0] * (len(nodes) + 1), [0] * (len(nodes) + 1)
    for name, (first, last) in _lifetimes(index).items():
        known = index.shape(name) is not None and name not in index.constants
        for counts in (change,) if known else (change, unknown):
            counts[first + 1] += 1
            counts[last + 1] -= 1
    crossing: list[int | None] = []
    alive = blocked = 0
    for position in range(len(nodes)):
        alive, blocked = alive + change[position], blocked + unknown[position]
        crossing.append(None if blocked else alive)
    return crossing


def _lifetimes(index: GraphIndex) -> dict[str, tuple[int, int]]:
    """Tensor that a node other than Constant makes -> positions of that node and of the last that reads it."""
    nodes = index.model.graph.node
    last = {name: position for position, node in enumerate(nodes) for name in node.input if name}
    return {
        name: (position, last[name])
        for position, node in enumerate(nodes)
        if not is_standard(node, "Constant")
        for name in node.output
        if name in last
    }


def segments(index: GraphIndex, cuts: Collection[int]) -> Iterator[Segment]:
    """The parts of a graph between ``cuts``, each made when it is asked for.

    Args:
        index: of a graph in topological order.
        cuts: as `cut_positions` gives them.
    """
    graph = index.model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    constants = {node.output[0]: node for node in graph.node if is_standard(node, "Constant")}
    bounds = [0, *sorted(cuts), len(graph.node)]
    given = {value.name for value in graph.output}
    for start, stop in pairwise(bounds):
        nodes = [node for node in graph.node[start:stop] if not is_standard(node, "Constant")]
        made = {name for node in nodes for name in node.output if name}
        read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in made)
        later = given.union(*(node.input for node in graph.node[stop:]))
        inputs = [name for name in read if name not in stored and name not in constants]
        outputs = [name for node in nodes for name in node.output if name in later]
        model = onnx.ModelProto(ir_version=index.model.ir_version)
        model.opset_import.extend(index.model.opset_import)
        model.functions.extend(index.model.functions)
        model.graph.name = f"{graph.name}_{start}_{stop}"
        model.graph.node.extend([*(constants[name] for name in read if name in constants), *nodes])
        model.graph.initializer.extend(stored[name] for name in read if name in stored)
        model.graph.input.extend(_value(index, name) for name in inputs)
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
        yield Segment(model, tuple(inputs), tuple(outputs))


def _value(index: GraphIndex, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, index.element_type(name), index.shape(name))
