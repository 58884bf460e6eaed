"""Editing a graph: drafts that share no weights, dropping what nobody reads, and names that are free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx

__all__ = [
    "UniqueNames",
    "complete",
    "copy_fields",
    "draft",
    "remove_unused",
    "unique_names",
    "with_nodes",
    "without_unused",
]


def draft(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` without its initializers, to be edited and then finished by `complete`.

    A protobuf message frees nothing before it goes as a whole: a weight that was copied and then replaced stays in
    memory beside the new one. So a pass that replaces weights does not copy them first.
    """
    result = onnx.ModelProto()
    copy_fields(model, result, "graph")
    copy_fields(model.graph, result.graph, "initializer")
    return result


def copy_fields(source: Any, target: Any, left_out: str) -> None:
    """Add all fields of a protobuf message to an empty one, but for the one called ``left_out``."""
    for field, value in source.ListFields():
        if field.name == left_out:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            # A message or a repeated field.
            getattr(target, field.name).MergeFrom(value)


def complete(edited: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Give a draft, in place, those initializers of its model that it reads and has not replaced; drop what is unused.

    Args:
        edited: a `draft` of ``model``, with new initializers of its own. An initializer of a name that the model has,
            too, takes that one's place. The model's come first, in their order.
        model: the model as it was.
    """
    remove_unused(edited)
    initializers = edited.graph.initializer
    own = {tensor.name for tensor in initializers}
    needed = _read(edited.graph) - own
    initializers.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    initializers.sort(key=lambda tensor: tensor.name in own)


def with_nodes(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], initializers: Iterable[onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy of ``model`` with other nodes, and of its initializers and the new ones those that the nodes read.

    Args:
        model: the model.
        nodes: all nodes of the copy, in order; some may be the model's own.
        initializers: new ones; one of a name that the model has, too, takes that one's place.
    """
    result = draft(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(initializers)
    complete(result, model)
    return result


def _read(graph: onnx.GraphProto) -> set[str]:
    return {value.name for value in graph.output}.union(*(node.input for node in graph.node))


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop, in place, nodes and initializers whose results nobody reads."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    for position, node in reversed(list(enumerate(graph.node))):
        if any(name in needed for name in node.output):
            needed.update(node.input)
        else:
            del graph.node[position]
    made = {name for node in graph.node for name in node.output}
    _keep(graph.initializer, needed)
    _keep(graph.value_info, made)


def _keep(named: Any, names: set[str]) -> None:
    # One by one: taken out and put back, the rest would be copied, and the first copy stay in memory.
    for position, item in reversed(list(enumerate(named))):
        if item.name not in names:
            del named[position]


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` without nodes and initializers whose results nobody reads: itself where it has none such."""
    result = draft(model)
    remove_unused(result)
    read = _read(result.graph)
    if len(result.graph.node) == len(model.graph.node) and all(one.name in read for one in model.graph.initializer):
        return model
    complete(result, model)
    return result


def unique_names(model: onnx.ModelProto) -> UniqueNames:
    """A source of tensor and node names that the model does not use yet."""
    graph = model.graph
    taken = {tensor.name for tensor in graph.initializer}
    taken.update(value.name for value in (*graph.input, *graph.output))
    for node in graph.node:
        taken.update((node.name, *node.input, *node.output))
    return UniqueNames(taken)


class UniqueNames:
    """Gives each wanted name once, with a number behind it where it is taken."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def __call__(self, wanted: str) -> str:
        """``wanted``, or the first of ``wanted_2``, ``wanted_3``, ... that is free."""
        for name in self._candidates(wanted):
            if name not in self._taken:
                self._taken.add(name)
                return name
        raise AssertionError("unreachable: the candidates are endless")

    @staticmethod
    def _candidates(wanted: str) -> Iterator[str]:
        yield wanted
        number = 2
        while True:
            yield f"{wanted}_{number}"
            number += 1
