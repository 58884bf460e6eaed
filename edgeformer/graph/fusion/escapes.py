"""What other parts of the graph take out of a block, such as the values that LePE convolves.

A block can only go when everything it hands out can be had without it: its attention output from the op, and parts of
qkv (however they were reshaped) as slices of the qkv image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.protos import is_standard

__all__ = ["Chain", "Escape", "find_escapes"]

_PART_OPS = ("Slice", "Split")


@dataclass(frozen=True)
class Chain:
    """Views that follow an operation on an escaped tensor, such as those that bring LePE back to NHWC.

    Attributes:
        source: the operation's output.
        nodes: positions of the views.
        target: the last view's output.
    """

    source: str
    nodes: tuple[int, ...]
    target: str


@dataclass(frozen=True)
class Escape:
    """A tensor computed from inside a block by views and slices only, which something outside reads.

    Attributes:
        tensor: the tensor.
        nodes: positions of the nodes outside the block that make it.
        chains: the views behind each operation that reads it and nothing else.
    """

    tensor: str
    nodes: tuple[int, ...]
    chains: tuple[Chain, ...]


def find_escapes(flow: Dataflow, region: Iterable[int], output: str, kept: Iterable[str]) -> list[Escape]:
    """All tensors by which data leaves a block other than by its output.

    Args:
        flow: the graph.
        region: the block's nodes.
        output: the block's output.
        kept: tensors that stay in the graph without the block.
    """
    inside = set(region)
    excluded = {output, *kept}
    escapes: dict[str, Escape] = {}
    for index in sorted(inside):
        for name in flow.nodes[index].output:
            if name and name not in excluded:
                _follow(flow, name, (), inside, escapes)
    return list(escapes.values())


def _follow(flow: Dataflow, name: str, path: tuple[int, ...], inside: set[int], found: dict[str, Escape]) -> None:
    outside = [index for index in flow.readers(name) if index not in inside]
    ends = [index for index in outside if not _moves(flow, index)]
    if ends or name in flow.outputs:
        chains = tuple(chain for index in ends if (chain := _chain(flow, index)) is not None)
        found.setdefault(name, Escape(name, path, chains))
    for index in outside:
        if _moves(flow, index):
            for output in flow.nodes[index].output:
                if output:
                    _follow(flow, output, (*path, index), inside, found)


def _moves(flow: Dataflow, index: int) -> bool:
    """Whether a node only moves, or picks a fixed part of, the elements of its first input."""
    if flow.view_source(index) is not None:
        return True
    node = flow.nodes[index]
    fixed = is_standard(node, *_PART_OPS) or is_standard(node, "Gather")
    return fixed and flow.data_inputs(index) == [node.input[0]]


def _chain(flow: Dataflow, index: int) -> Chain | None:
    """The views behind a node with one data input and one output, where there are at least two."""
    node = flow.nodes[index]
    if len(flow.data_inputs(index)) != 1 or len(node.output) != 1:
        return None
    names, nodes = [node.output[0]], list[int]()
    while names[-1] not in flow.outputs:
        readers = flow.readers(names[-1])
        if len(readers) != 1 or flow.view_source(readers[0]) is None or is_standard(flow.nodes[readers[0]], "Cast"):
            break
        nodes.append(readers[0])
        names.append(flow.nodes[readers[0]].output[0])
    return Chain(names[0], tuple(nodes), names[-1]) if len(nodes) > 1 else None
