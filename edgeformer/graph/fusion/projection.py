"""The way from an image to the attention: the qkv Linear and the reshapes around it.

Exports of BiFormer cut the image into regions first and apply the qkv Linear then. A Linear is pointwise over tokens,
so both orders give the same; the op wants the Linear's output in image layout, so the Linear moves above the cutting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import Array
from edgeformer.graph.protos import is_float_cast, is_standard

__all__ = ["Layout", "Link", "Route", "find_routes", "orient", "output_channels", "projection_nodes"]

Layout = Literal["NHWC", "NCHW"]
_TO_NHWC = [0, 2, 3, 1]


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
        links: what is done to it before q, k and v part, in order; views are left out.
        above: tensors from ``tensor`` to the input of the Linear, which stay in the graph if others read them.
    """

    tensor: str
    links: tuple[Link, ...]
    above: frozenset[str]


def find_routes(flow: Dataflow, product: str) -> list[Route]:
    """All routes to the attention product ``product``, the shortest first."""
    return list(_routes(flow, product))


def _routes(flow: Dataflow, product: str) -> Iterator[Route]:
    name = flow.dominator(product)
    links: list[Link] = []
    above: set[str] = set()
    while name is not None:
        if any(link.linear for link in links):
            above.add(name)
        yield Route(name, tuple(reversed(links)), frozenset(above - {name}))
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


def output_channels(links: Sequence[Link], shapes: dict[str, tuple[int, ...]]) -> int | None:
    """Output channels of the Linear among ``links``; None where there is none, 0 where its weight has a wrong shape.

    Args:
        links: the links of a route.
        shapes: shapes of their operands.
    """
    for link in links:
        if not link.linear:
            continue
        weight = shapes[link.operands[0]]
        if link.kind == "conv":
            return weight[0] if len(weight) == 4 and weight[2:] == (1, 1) else 0
        if len(weight) != 2:
            return 0
        return weight[0] if link.transposed else weight[1]
    return None


def orient(link: Link, weight: Array) -> Array:
    """A weight ``[in, out]`` in the layout in which the link's node wants it."""
    if link.kind == "conv":
        return np.ascontiguousarray(weight.T[:, :, None, None])
    return np.ascontiguousarray(weight.T) if link.transposed else weight


def projection_nodes(
    nodes: Sequence[onnx.NodeProto], route: Route, layout: Layout, prefix: str
) -> tuple[list[onnx.NodeProto], str, str | None]:
    """The nodes that make the qkv tensor in image layout.

    Args:
        nodes: the graph's nodes; a route's links point into them.
        route: where to start, and what to apply.
        layout: layout of the route's tensor.
        prefix: start of all new names.

    Returns:
        The new nodes; the name of qkv ``[N, H, W, channels]``; the name of the same as ``[N, channels, H, W]`` where
        the nodes make that on the way (or the route's tensor is it), else None.
    """
    made: list[onnx.NodeProto] = []

    def make(op_type: str, inputs: list[str], what: str, **attributes: Any) -> str:
        output = f"{prefix}/{what}"
        made.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    links = list(route.links)
    current, channels_first = route.tensor, None
    if layout == "NCHW":
        while links and links[0].kind in ("conv", "cast"):
            link = links.pop(0)
            node = nodes[link.node]
            output = f"{prefix}/qkv_channels_first" if link.linear else f"{prefix}/cast"
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = output
            copied.input[0], copied.output[0] = current, output
            made.append(copied)
            current = output
        channels_first = None if any(link.linear or link.kind == "bias" for link in links) else current
        current = make("Transpose", [current], "channels_last", perm=_TO_NHWC)
    for link in links:
        if link.kind == "cast":
            to = helper.get_node_attr_value(nodes[link.node], "to")
            current = make("Cast", [current], "cast", to=to)
            continue
        if link.kind == "bias":
            current = make("Add", [current, *link.operands], "qkv")
            continue
        weight = link.operands[0]
        if link.kind == "conv":
            weight = make("Flatten", [weight], "weight_flat", axis=1)
        if link.kind == "conv" or link.transposed:
            weight = make("Transpose", [weight], "weight", perm=[1, 0])
        current = make("MatMul", [current, weight], "product")
        if len(link.operands) == 2:
            current = make("Add", [current, link.operands[1]], "qkv")
    return made, current, channels_first
