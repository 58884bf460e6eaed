"""Where the blocks of a graph begin and end, and what one graph's tensors are called in the next.

Blocks are told by what the exporter noted at each node (`edgeformer.graph.network_parts`); a graph without such notes
is divided by its op nodes, and one without those where a single tensor crosses that several nodes read, as at the
start of a residual branch. Which tensors cross a cut follows from the graph, so that any network can be cut.

The passes between two forms keep the names of the tensors that they keep, and that is what the forms are matched by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.network_parts import network_parts
from edgeformer.graph.protos import attribute, is_standard

__all__ = ["Block", "Counterpart", "blocks_of", "counterparts", "joined", "merged"]

# What `edgeformer.graph.pointwise` appends to the name of a tensor that it makes channels first.
_CHANNELS_FIRST = "/channels_first"
_TO_NCHW = (0, 3, 1, 2)
_SAME: tuple[int, ...] = ()


@dataclass(frozen=True)
class Block:
    """A block of a graph.

    Attributes:
        name: see `edgeformer.records.blocks.BlockCheck`.
        inputs: the tensors with data that cross its beginning, whether it reads them or not; the network's own input is
            not among them.
        outputs: the tensors with data that it makes and that cross its end, or that the graph gives.
        crossing: all that cross its end: what the next block may read.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    crossing: tuple[str, ...]


def blocks_of(model: onnx.ModelProto) -> tuple[Block, ...]:
    """The blocks of a graph in topological order, one after the other; at least one.

    Args:
        model: a graph with or without op nodes; its functions are not looked into.
    """
    flow = Dataflow(model)
    names, order = _by_block(flow, _names(model, flow))
    lives = _lifetimes(flow, order)
    starts = [0]
    starts += [position for position in range(1, len(names)) if names[position] != names[position - 1]]
    bounds = [*starts, len(order)]
    crossings = [_crossing(lives, bound) for bound in bounds]
    seen: dict[str, int] = {}
    blocks = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        name = names[start]
        seen[name] = seen.get(name, 0) + 1
        nodes = [flow.nodes[index] for index in order[start:stop]]
        made = [one for node in nodes for one in node.output if one and one not in flow.static]
        leaving = set(crossings[number + 1]) | flow.outputs
        blocks.append(
            Block(
                name=name if seen[name] == 1 else f"{name} ({seen[name]})",
                inputs=crossings[number],
                outputs=tuple(one for one in made if one in leaving),
                crossing=crossings[number + 1],
            )
        )
    # A block of which nothing leaves makes constants and shapes.
    return tuple(block for block in blocks if block.outputs)


def _by_block(flow: Dataflow, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The nodes in an order in which those of a block stand together, and the block of each.

    Sorting a graph topologically leaves branches side by side that belong to different blocks. Where a block needs what
    another makes of its own results, the nodes stay as they stand.
    """
    needs: dict[str, set[str]] = {name: set() for name in names}
    for index, name in enumerate(names):
        for tensor in flow.data_inputs(index):
            if tensor in flow.producer and names[flow.producer[tensor]] != name:
                needs[name].add(names[flow.producer[tensor]])
    ordered: list[str] = []
    while len(ordered) < len(needs):
        ready = next((name for name in needs if name not in ordered and needs[name] <= set(ordered)), None)
        if ready is None:
            return list(names), list(range(len(names)))
        ordered.append(ready)
    place = {name: number for number, name in enumerate(ordered)}
    order = sorted(range(len(names)), key=lambda index: place[names[index]])
    return [names[index] for index in order], order


def _names(model: onnx.ModelProto, flow: Dataflow) -> list[str]:
    """The name of the block of each node."""
    known = {id(node): part.name for part in network_parts(model) for node in part.nodes}
    names: list[str] = []
    for position, node in enumerate(flow.nodes):
        # Constants and shapes belong to nothing: they are computed wherever they are needed.
        carries_data = any(name and name not in flow.static for name in node.output)
        previous = names[-1] if names else None
        found = known.get(id(node)) if carries_data else None
        names.append(found or previous or "")
        if names[0] == "" and found:
            names[: position + 1] = [found] * (position + 1)
    if known:
        return names
    return _by_structure(flow)


def _by_structure(flow: Dataflow) -> list[str]:
    names, part, lives = [], 1, _lifetimes(flow, range(len(flow.nodes)))
    for position in range(len(flow.nodes)):
        crossing = _crossing(lives, position)
        if len(crossing) == 1 and len(flow.readers(crossing[0])) > 1 and flow.producer[crossing[0]] == position - 1:
            part += 1
        names.append(f"part {part}")
    return names


def _lifetimes(flow: Dataflow, order: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Tensor with data that is read -> places, in an order of the nodes, of what makes it and of what reads it last."""
    place = {index: number for number, index in enumerate(order)}
    lives = {}
    for name, producer in flow.producer.items():
        readers = flow.readers(name) if name not in flow.static else []
        if readers:
            lives[name] = (place[producer], max(place[reader] for reader in readers))
    return lives


def _crossing(lives: Mapping[str, tuple[int, int]], position: int) -> tuple[str, ...]:
    """Tensors with data that nodes before a place make and nodes from there on read."""
    return tuple(name for name, (first, last) in lives.items() if first < position <= last)


def merged(blocks: Sequence[Block], has: Callable[[str], bool]) -> tuple[Block, ...]:
    """The blocks without those boundaries at which a tensor crosses that a form does not have.

    Args:
        blocks: one after the other.
        has: whether the form has a tensor.
    """
    result: list[Block] = []
    for block in blocks:
        if result and not all(has(name) for name in result[-1].crossing):
            before = result.pop()
            block = joined(before, block)
        result.append(block)
    return tuple(result)


def joined(first: Block, second: Block) -> Block:
    """Two blocks, one behind the other, as one."""
    leaving = set(second.crossing)
    # What the first gives and nobody needs behind the second is an inner tensor now, or an output of the graph.
    outputs = tuple(name for name in first.outputs if name in leaving or name not in first.crossing)
    return Block(f"{first.name} + {second.name}", first.inputs, outputs + second.outputs, second.crossing)


@dataclass(frozen=True)
class Counterpart:
    """What a tensor of one graph is called in another.

    Attributes:
        name: its name there.
        perm: how its axes lie there, as in Transpose; empty where they lie the same.
    """

    name: str
    perm: tuple[int, ...] = _SAME


def counterparts(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> dict[str, tuple[Counterpart, ...]]:
    """For each tensor with data of one graph those of another that are the same, by their names.

    Left out are those that a quantized graph has under the same name with other values: SmoothQuant moves scales and
    offsets between a LayerNormalization and the layers that read it, and offsets from a product to its bias.

    Args:
        reference: the graph before a pass.
        candidate: the graph behind it.
    """
    flow, behind = Dataflow(reference), Dataflow(candidate)
    have = behind.producer.keys()
    moved = any(is_standard(node, "QuantizeLinear") for node in candidate.graph.node)
    found: dict[str, tuple[Counterpart, ...]] = {}
    for index, node in enumerate(flow.nodes):
        for name in node.output:
            if not name or name in flow.static or (moved and _is_moved(flow, index, behind)):
                continue
            there = [Counterpart(name)] if name in have else []
            if name + _CHANNELS_FIRST in have:
                there.append(Counterpart(name + _CHANNELS_FIRST, _TO_NCHW))
            perm = attribute(node, "perm") if is_standard(node, "Transpose") else None
            if perm and node.input[0] in found:
                # Some of its readers may read what it is the transpose of.
                there += [_behind(source, perm) for source in found[node.input[0]]]
            if there:
                found[name] = tuple(there)
    return found


def _behind(source: Counterpart, perm: Sequence[int]) -> Counterpart:
    """What the Transpose of a tensor is in a graph that has the tensor itself alone."""
    inverse = [list(perm).index(axis) for axis in range(len(perm))]
    axes = tuple(inverse[axis] for axis in (source.perm or range(len(perm))))
    return Counterpart(source.name, _SAME if axes == tuple(range(len(axes))) else axes)


def _is_moved(flow: Dataflow, index: int, behind: Dataflow) -> bool:
    """Whether quantization changes a node's result: a norm that only layers read, or a layer whose bias is an Add.

    Args:
        flow: the graph before.
        index: the node.
        behind: the quantized graph.
    """
    node = flow.nodes[index]
    name = node.output[0]
    if is_standard(node, "LayerNormalization"):
        readers = [flow.nodes[reader] for reader in flow.readers(name)]
        return bool(readers) and all(is_standard(reader, "MatMul", "Gemm", "Conv") for reader in readers)
    if is_standard(node, "MatMul", "Gemm", "Conv") and name in behind.producer:
        # What SmoothQuant moves and what INT8 shifts is taken back there.
        readers = [behind.nodes[reader] for reader in behind.readers(name)]
        return bool(readers) and all(
            is_standard(reader, "Add") and any(one in behind.static for one in reader.input) for reader in readers
        )
    return False
