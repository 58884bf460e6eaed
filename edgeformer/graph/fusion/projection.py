"""The way from an image to the attention: the qkv Linear, or several, and the reshapes around it.

Exports of BiFormer cut the image into regions first and apply the qkv Linear then. A Linear is pointwise over tokens,
so both orders give the same; the op wants the Linear's output in image layout, so the Linear moves above the cutting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import helper

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import Array
from edgeformer.graph.protos import is_float_cast, is_standard

__all__ = ["Layout", "Link", "Route", "find_routes", "orient", "output_widths"]

Layout = Literal["NHWC", "NCHW"]


@dataclass(frozen=True)
class Link:
    """One operation between an image and the qkv tensor that is more than a view.

    Attributes:
        kind: ``matmul`` (``x @ W``), ``gemm``, ``conv`` (1 x 1), ``bias`` (adds a static tensor) or ``cast``.
        node: position of the node in the graph.
        operands: names of its static operands: weight and, if there is one, bias.
        transposed: whether a Gemm's weight is ``[out, in]``.
    """

    kind: Literal["matmul", "gemm", "conv", "bias", "cast"]
    node: int
    operands: tuple[str, ...] = ()
    transposed: bool = False

    @property
    def linear(self) -> bool:
        """Whether the link changes the number of channels."""
        return self.kind in ("matmul", "gemm", "conv")


@dataclass(frozen=True)
class Route:
    """A tensor through which all data of a candidate flows, and what lies between it and the attention.

    Attributes:
        tensor: the tensor.
        branches: what is done to it before q, k and v part, in order; views are left out. Several where q, k and v come
            from Linears of their own (or q from one, k and v from another): each branch has one Linear.
        above: tensors from ``tensor`` to the input of the Linear, which stay in the graph if others read them.
    """

    tensor: str
    branches: tuple[tuple[Link, ...], ...]
    above: frozenset[str]

    @property
    def links(self) -> tuple[Link, ...]:
        """The links of all branches."""
        return tuple(link for branch in self.branches for link in branch)

    @property
    def linears(self) -> tuple[Link, ...]:
        """The Linear of each branch; empty where there is none."""
        return tuple(link for link in self.links if link.linear)


def find_routes(flow: Dataflow, product: str) -> list[Route]:
    """All routes to the attention product ``product``: those with one branch, the shortest first, then the others."""
    return [*_routes(flow, product), *_forks(flow, product)]


def _routes(flow: Dataflow, product: str) -> Iterator[Route]:
    name = flow.dominator(product)
    links: list[Link] = []
    above: set[str] = set()
    while name is not None:
        if any(link.linear for link in links):
            above.add(name)
        yield Route(name, (tuple(reversed(links)),), frozenset(above - {name}))
        index = flow.producer.get(name)
        if index is None:
            return
        if flow.view_source(index) is not None:
            if is_float_cast(flow.nodes[index]):
                links.append(Link("cast", index))
        elif any(link.linear for link in links):
            return
        elif (link := _link(flow, index)) is not None:
            links.append(link)
        else:
            return
        (name,) = flow.data_inputs(index)


def _forks(flow: Dataflow, product: str) -> Iterator[Route]:
    """Routes whose data goes through several Linears, each of which reads the route's tensor."""
    name = flow.dominator(product)
    if name is None or (found := _branches(flow, name, product)) is None:
        return
    branches, above = found
    while True:
        yield Route(name, tuple(branches), frozenset(above - {name}))
        index = flow.producer.get(name)
        source = None if index is None else flow.view_source(index)
        if index is None or source is None:
            return
        if is_float_cast(flow.nodes[index]):
            branches = [(Link("cast", index), *branch) for branch in branches]
        name = source
        above.add(name)


def _branches(flow: Dataflow, source: str, product: str) -> tuple[list[tuple[Link, ...]], set[str]] | None:
    """The Linears that all data from ``source`` to ``product`` goes through, and the tensors above them.

    None where some of it goes another way, or all of it through one Linear.
    """
    region = set(flow.between(source, [product]))
    pending: list[tuple[str, tuple[Link, ...]]] = [(source, ())]
    branches: list[tuple[Link, ...]] = []
    above = {source}
    while pending:
        name, casts = pending.pop(0)
        for index in flow.readers(name):
            if index not in region:
                continue
            link = _link(flow, index)
            if flow.view_source(index) is not None:
                output = flow.nodes[index].output[0]
                above.add(output)
                cast = (Link("cast", index),) if is_float_cast(flow.nodes[index]) else ()
                pending.append((output, (*casts, *cast)))
            elif link is not None and link.linear:
                branches.append((*casts, link, *_biases(flow, index)))
            else:
                return None
    # One Linear reads a tensor in one type, however many casts to it there are.
    alike = len({sum(link.kind == "cast" for link in branch) for branch in branches}) == 1
    return (branches, above) if len(branches) > 1 and alike else None


def _biases(flow: Dataflow, linear: int) -> tuple[Link, ...]:
    """What is added to a Linear's output before anything else is done to it."""
    links: list[Link] = []
    name = flow.nodes[linear].output[0]
    while name not in flow.outputs and len(readers := flow.readers(name)) == 1:
        link = _link(flow, readers[0])
        if link is not None and link.kind == "bias":
            links.append(link)
        elif flow.view_source(readers[0]) is None or is_float_cast(flow.nodes[readers[0]]):
            break
        name = flow.nodes[readers[0]].output[0]
    return tuple(links)


def _link(flow: Dataflow, index: int) -> Link | None:
    """The node as a link; None where this module does not know how to move it."""
    node = flow.nodes[index]
    data = flow.data_inputs(index)
    operands = tuple(name for name in node.input if name and name not in data)
    if len(data) != 1:
        return None
    if is_standard(node, "Add") and len(operands) == 1:
        return Link("bias", index, operands)
    if data[0] != node.input[0]:
        return None
    if is_standard(node, "MatMul"):
        return Link("matmul", index, operands)
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if is_standard(node, "Gemm"):
        plain = values.get("alpha", 1.0) == 1.0 and values.get("beta", 1.0) == 1.0 and not values.get("transA", 0)
        return Link("gemm", index, operands, bool(values.get("transB", 0))) if plain else None
    if is_standard(node, "Conv"):
        plain = (
            values.get("group", 1) == 1
            and not any(values.get("pads", ()))
            and all(stride == 1 for stride in values.get("strides", ()))
        )
        return Link("conv", index, operands) if plain else None
    return None


def output_widths(route: Route, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Output channels of each Linear of a route, 0 where its weight has a wrong shape.

    Args:
        route: the route.
        shapes: shapes of its links' operands.
    """
    widths = []
    for link in route.linears:
        weight = shapes[link.operands[0]]
        if link.kind == "conv":
            widths.append(weight[0] if len(weight) == 4 and weight[2:] == (1, 1) else 0)
        else:
            widths.append((weight[0] if link.transposed else weight[1]) if len(weight) == 2 else 0)
    return tuple(widths)


def orient(link: Link, weight: Array) -> Array:
    """A weight ``[in, out]`` in the layout in which the link's node wants it."""
    if link.kind == "conv":
        return np.ascontiguousarray(weight.T[:, :, None, None])
    return np.ascontiguousarray(weight.T if link.transposed else weight)
