"""The nodes that make qkv: the Linear on the image, or several as one with their weights stacked.

A Linear's output channels may be picked in any order by picking columns of its weight, which costs nothing at run time:
so q, k and v come in the order of the op, whatever order and how many Linears the model has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.fusion.projection import Layout, Link, Route

__all__ = ["Columns", "projection_nodes"]

_TO_NHWC = [0, 2, 3, 1]


@dataclass(frozen=True)
class Columns:
    """Which of the projection's output channels are the queries, keys and values.

    Attributes:
        indices: a channel of the projections' outputs, counted through all of them, for each channel of qkv.
        qk_dim: how many of them are queries, and how many keys.
    """

    indices: tuple[int, ...]
    qk_dim: int


def projection_nodes(
    nodes: Sequence[onnx.NodeProto],
    route: Route,
    layout: Layout,
    prefix: str,
    columns: Columns | None,
    widths: Sequence[int],
) -> tuple[list[onnx.NodeProto], str, str | None]:
    """The nodes that make the qkv tensor in image layout.

    Args:
        nodes: the graph's nodes; a route's links point into them.
        route: where to start, and what to apply.
        layout: layout of the route's tensor.
        prefix: start of all new names.
        columns: which channels to take, in which order; None for all in theirs.
        widths: output channels of each of the route's branches.

    Returns:
        The new nodes; the name of qkv ``[N, H, W, channels]``; the name of the same as ``[N, channels, H, W]`` where
        the nodes make that on the way (or the route's tensor is it), else None.
    """
    maker = _Maker(nodes, prefix)
    if columns is None and len(route.branches) == 1:
        return maker.made, *_moved(maker, route, layout)
    return maker.made, *_stacked(maker, route, layout, columns, widths)


class _Maker:
    """Makes nodes whose names all start with ``prefix``."""

    def __init__(self, nodes: Sequence[onnx.NodeProto], prefix: str) -> None:
        self.nodes, self.prefix = nodes, prefix
        self.made: list[onnx.NodeProto] = []
        self._count: Counter[str] = Counter()

    def make(self, op_type: str, inputs: list[str], what: str, **attributes: Any) -> str:
        """A node called ``what`` (made unique if there is one already) whose one output has its name."""
        self._count[what] += 1
        output = f"{self.prefix}/{what}" + (f"_again_{self._count[what]}" if self._count[what] > 1 else "")
        self.made.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike, what: str) -> str:
        """A constant."""
        return self.make("Constant", [], what, value=numpy_helper.from_array(np.array(values, dtype)))

    def cast(self, current: str, link: Link) -> str:
        """A copy of a Cast."""
        return self.make("Cast", [current], "cast", to=helper.get_node_attr_value(self.nodes[link.node], "to"))


def _moved(maker: _Maker, route: Route, layout: Layout) -> tuple[str, str | None]:
    """One branch as it is, on the image."""
    links = list(route.links)
    current, channels_first = route.tensor, None
    if layout == "NCHW":
        while links and links[0].kind in ("conv", "cast"):
            link = links.pop(0)
            output = f"{maker.prefix}/qkv_channels_first" if link.linear else f"{maker.prefix}/cast"
            copied = onnx.NodeProto()
            copied.CopyFrom(maker.nodes[link.node])
            copied.name = output
            copied.input[0], copied.output[0] = current, output
            maker.made.append(copied)
            current = output
        channels_first = None if any(link.linear or link.kind == "bias" for link in links) else current
        current = maker.make("Transpose", [current], "channels_last", perm=_TO_NHWC)
    for link in links:
        if link.kind == "cast":
            current = maker.cast(current, link)
            continue
        if link.kind == "bias":
            current = maker.make("Add", [current, *link.operands], "qkv")
            continue
        weight = _weight(maker, link, "weight")
        current = maker.make("MatMul", [current, weight], "product")
        if len(link.operands) == 2:
            current = maker.make("Add", [current, link.operands[1]], "qkv")
    return current, channels_first


def _weight(maker: _Maker, link: Link, what: str) -> str:
    """A Linear's weight as ``[in, out]``."""
    weight = link.operands[0]
    if link.kind == "conv":
        weight = maker.make("Flatten", [weight], f"{what}_flat", axis=1)
    if link.kind == "conv" or link.transposed:
        weight = maker.make("Transpose", [weight], what, perm=[1, 0])
    return weight


def _stacked(
    maker: _Maker, route: Route, layout: Layout, columns: Columns | None, widths: Sequence[int]
) -> tuple[str, str | None]:
    """All branches as one Linear, and of its output channels those in ``columns``."""
    current = route.tensor
    biases = [[name for link in branch for name in _bias_operands(link)] for branch in route.branches]
    # The branch with most biases has every step that any of them has.
    template = route.branches[max(range(len(biases)), key=lambda number: len(biases[number]))]
    picked = None
    if columns is not None and columns.indices != tuple(range(sum(widths))):
        picked = maker.constant(columns.indices, np.int64, "weight_columns")
    channels_last = layout == "NHWC"
    if not route.linears:
        if not channels_last:
            current = maker.make("Transpose", [current], "channels_last", perm=_TO_NHWC)
        assert picked is not None  # one branch that is taken as it is was moved
        for link in template:
            if link.kind == "cast":
                current = maker.cast(current, link)
            else:
                current = maker.make("Add", [current, *link.operands], "projected")
        return maker.make("Gather", [current, picked], "qkv", axis=3), None
    vectors = [
        _stacked_bias(maker, [names[step] if step < len(names) else None for names in biases], widths, picked, step)
        for step in range(max(map(len, biases)))
    ]
    convolved = not channels_last and all(
        link.kind in ("conv", "cast") for branch in route.branches for link in branch if link.kind != "bias"
    )
    convolved = convolved and not any(link.kind == "bias" for link in route.links)
    weights = [
        link.operands[0] if convolved else _weight(maker, link, f"weight_{number}")
        for number, link in enumerate(route.linears)
    ]
    axis = 0 if convolved else 1
    weight = weights[0] if len(weights) == 1 else maker.make("Concat", weights, "weight_stack", axis=axis)
    if picked is not None:
        weight = maker.make("Gather", [weight, picked], "weight_picked", axis=axis)
    channels_first = None
    for link in template:
        if link.kind == "cast":
            current = maker.cast(current, link)
        elif convolved:
            channels_first = maker.make("Conv", [current, weight, *vectors], "qkv_channels_first", kernel_shape=[1, 1])
            current = channels_first
        elif link.kind == "bias":
            current = maker.make("Add", [current, vectors.pop(0)], "qkv")
        else:
            if not channels_last:
                current = maker.make("Transpose", [current], "channels_last", perm=_TO_NHWC)
            current = maker.make("MatMul", [current, weight], "product")
            if len(link.operands) == 2:
                current = maker.make("Add", [current, vectors.pop(0)], "qkv")
    if convolved:
        current = maker.make("Transpose", [current], "channels_last", perm=_TO_NHWC)
    return current, channels_first


def _bias_operands(link: Link) -> tuple[str, ...]:
    return link.operands[1:] if link.linear else link.operands


def _stacked_bias(
    maker: _Maker, names: Sequence[str | None], widths: Sequence[int], picked: str | None, step: int
) -> str:
    """One bias of each branch as one vector, zeros where a branch has none."""
    first = next(name for name in names if name is not None)
    flat = maker.constant([-1], np.int64, f"bias_{step}_flat")
    parts = []
    for number, (name, width) in enumerate(zip(names, widths, strict=True)):
        what = f"bias_{step}_{number}"
        if name is None:
            zeros = maker.constant(np.zeros(width), np.float32, f"{what}_zeros")
            parts.append(maker.make("CastLike", [zeros, first], what))
        else:
            parts.append(maker.make("Reshape", [name, flat], what))
    vector = parts[0] if len(parts) == 1 else maker.make("Concat", parts, f"bias_{step}_stack", axis=0)
    return vector if picked is None else maker.make("Gather", [vector, picked], f"bias_{step}_picked", axis=0)
