"""Editing a graph in place: dropping what nobody reads, and names that are free."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

__all__ = ["UniqueNames", "remove_unused", "unique_names"]


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop, in place, nodes and initializers whose results nobody reads."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(list(graph.node)):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    if len(kept) != len(graph.node):
        nodes = list(reversed(kept))
        del graph.node[:]
        graph.node.extend(nodes)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    if len(initializers) != len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(initializers)
    made = {name for node in graph.node for name in node.output}
    infos = [value for value in graph.value_info if value.name in made]
    if len(infos) != len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(infos)


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
