"""Which channels of a projection are the queries, keys and values: found by sending channel numbers through the block.

Where every token is the same, means over regions, gathers and reshapes change no value. So if every channel holds its
own number, the numbers that reach the routing's product and the values' product say where each came from. A factor on
the way is found by sending ones. That is a guess like all others: the proof decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from edgeformer.graph.fusion.anchors import Anchors, operands, weighted_values
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import Array, ExecutionError, Observation, Session, extract
from edgeformer.graph.fusion.geometry import PERM
from edgeformer.graph.fusion.projection import Layout, Route, output_widths
from edgeformer.graph.fusion.stacking import Columns

__all__ = ["find_columns"]


def find_columns(
    flow: Dataflow,
    opset: Sequence[onnx.OperatorSetIdProto],
    anchors: Anchors,
    route: Route,
    layout: Layout,
    observation: Observation,
) -> list[Columns]:
    """What may be the channels of q, k and v.

    Each part is taken in ascending order: heads one after the other, as in the op.

    Args:
        flow: the graph, widened.
        opset: its opset imports.
        anchors: the candidate.
        route: a way to its attention.
        layout: layout of the route's tensor.
        observation: shapes and static values at one set of input shapes.

    Returns:
        Two, which differ in what is taken for queries and what for keys; none where it could not be found out.
    """
    values, factors = weighted_values(flow, anchors), _routing_factors(flow, anchors)
    sources = _sources(flow, route, layout, observation)
    if values is None or factors is None or not sources:
        return []
    wanted = [*factors, values]
    nodes = _between(flow, list(sources), wanted)
    # A bias on the way would hide the numbers.
    zeros = {name: np.zeros(observation.shapes[name], np.float32) for link in route.links for name in link.operands}
    read = {name for index in nodes for name in flow.reads(index)}
    fed = {name: value for name, value in zeros.items() if name in read}
    ranks = {name: len(shape) for name, (shape, _) in sources.items()} | {
        name: value.ndim for name, value in fed.items()
    }
    try:
        session = Session(extract(flow, opset, nodes, ranks, sorted(set(wanted) - sources.keys()), observation.values))
        numbers, ones = (session.run(fed | feeds) | feeds for feeds in (_numbered(sources, c) for c in (True, False)))
    except ExecutionError:
        return []
    query, key, value = (_origins(numbers[name], ones[name]) for name in wanted)
    if len(query) != len(key) or not query or not value:
        return []
    return [Columns((*one, *other, *value), len(one)) for one, other in ((query, key), (key, query))]


def _routing_factors(flow: Dataflow, anchors: Anchors) -> tuple[str, str] | None:
    """The two tensors whose product is the routing logits; None where that is not what they are."""
    name = flow.nodes[anchors.topk].input[0]
    while (index := flow.producer.get(name)) is not None:
        found = operands(flow, index)
        if len(found) == 2:
            return (found[0], found[1])
        if len(found) != 1:
            return None
        name = found[0]
    return None


def _sources(
    flow: Dataflow, route: Route, layout: Layout, observation: Observation
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and channel axis of each tensor that holds channels of the projection, in the order of the branches."""
    if not route.linears:
        shape = observation.shapes[route.tensor]
        return {route.tensor: (shape, PERM[layout][3])} if len(shape) == 4 else {}
    found = {}
    for link, width in zip(route.linears, output_widths(route, observation.shapes), strict=True):
        shape = observation.shapes[flow.nodes[link.node].output[0]]
        axis = 1 if link.kind == "conv" else len(shape) - 1
        if shape[axis] != width:
            return {}
        found[flow.nodes[link.node].output[0]] = (shape, axis)
    return found


def _between(flow: Dataflow, sources: Sequence[str], targets: Sequence[str]) -> list[int]:
    """The nodes that make ``targets`` of ``sources``."""
    needed, nodes = set(targets) - set(sources), set[int]()
    while needed:
        index = flow.producer.get(needed.pop())
        if index is not None and index not in nodes:
            nodes.add(index)
            needed.update(name for name in flow.data_inputs(index) if name not in sources)
    return sorted(nodes)


def _numbered(sources: Mapping[str, tuple[tuple[int, ...], int]], counted: bool) -> dict[str, Array]:
    """A feed in which every channel holds its number, from 1 on through all ``sources``; or ones."""
    feeds, start = {}, 1
    for name, (shape, axis) in sources.items():
        size = shape[axis]
        along = np.arange(start, start + size) if counted else np.ones(size)
        wide = along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        feeds[name] = np.broadcast_to(wide, shape).astype(np.float32)
        start += size
    return feeds


def _origins(numbers: Array, ones: Array) -> tuple[int, ...]:
    """The channels, from 0 on and in ascending order, that a tensor is made of; none where it is no plain mix."""
    if numbers.dtype.kind != "f" or numbers.shape != ones.shape:
        return ()
    kept = ones != 0
    found = numbers[kept] / ones[kept]
    nearest = np.rint(found)
    if found.size == 0 or not np.isfinite(found).all() or np.abs(found - nearest).max() > 0.01 or nearest.min() < 1:
        return ()
    return tuple(int(number) - 1 for number in np.unique(nearest))
