"""What a proven block is replaced by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.fusion.escapes import Chain
from edgeformer.graph.fusion.projection import Layout, Route
from edgeformer.graph.fusion.stacking import Columns, projection_nodes
from edgeformer.ops.bi_level_routing_attention import Attributes

__all__ = ["Part", "Plan"]

_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass(frozen=True)
class Part:
    """A tensor of the old graph that is channels ``start`` to ``stop`` of the qkv image, in ``layout``."""

    tensor: str
    layout: Layout
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """How to rewrite one block.

    Attributes:
        name: the op node's name, and the prefix of all new names.
        attributes: the op's attributes.
        route: the tensor at which the new nodes start and the Linear to apply to it.
        layout: that tensor's layout.
        output: the old tensor that is the attention output, which the new nodes make.
        output_layout: its layout.
        parts: other old tensors that the new nodes make.
        moves: chains of views that amount to one permutation, and that permutation.
        columns: which channels of the projection are q, k and v; None for all in their order.
        widths: output channels of each of the route's branches.
    """

    name: str
    attributes: Attributes
    route: Route
    layout: Layout
    output: str
    output_layout: Layout
    parts: tuple[Part, ...]
    moves: tuple[tuple[Chain, tuple[int, ...]], ...]
    columns: Columns | None
    widths: tuple[int, ...]

    @property
    def made(self) -> tuple[str, ...]:
        """The old tensors that `block_nodes` makes."""
        return (self.output, *(part.tensor for part in self.parts))

    def block_nodes(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes that make ``output`` and all ``parts``.

        Args:
            nodes: the old graph's nodes.
        """
        made, qkv, channels_first = projection_nodes(
            nodes, self.route, self.layout, self.name, self.columns, self.widths
        )
        if self.output_layout == "NHWC":
            made.append(self.attributes.make_node(qkv, self.output, self.name))
        else:
            attended = f"{self.name}/output"
            made.append(self.attributes.make_node(qkv, attended, self.name))
            made.append(_transpose(attended, self.output, _TO_NCHW, f"{self.name}/channels_first"))
        for number, part in enumerate(self.parts):
            prefix = f"{self.name}/part_{number}"
            if part.layout == "NCHW" and channels_first is not None:
                made += _slice(channels_first, part, 1, part.tensor, prefix)
            elif part.layout == "NCHW":
                made += _slice(qkv, part, 3, f"{prefix}/slice", prefix)
                made.append(_transpose(f"{prefix}/slice", part.tensor, _TO_NCHW, f"{prefix}/channels_first"))
            else:
                made += _slice(qkv, part, 3, part.tensor, prefix)
        return made

    def move_nodes(self) -> list[onnx.NodeProto]:
        """One node for each chain of ``moves``."""
        made = []
        for number, (chain, perm) in enumerate(self.moves):
            name = f"{self.name}/move_{number}"
            if perm == (0, 1, 2, 3):
                made.append(helper.make_node("Identity", [chain.source], [chain.target], name=name))
            else:
                made.append(_transpose(chain.source, chain.target, list(perm), name))
        return made


def _transpose(source: str, target: str, perm: list[int], name: str) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], [target], name=name, perm=perm)


def _slice(source: str, part: Part, axis: int, target: str, prefix: str) -> list[onnx.NodeProto]:
    bounds = {"start": part.start, "stop": part.stop, "axis": axis}
    constants = [
        helper.make_node(
            "Constant",
            [],
            [f"{prefix}/{what}"],
            name=f"{prefix}/{what}",
            value=numpy_helper.from_array(np.array([value], np.int64)),
        )
        for what, value in bounds.items()
    ]
    return [
        *constants,
        helper.make_node("Slice", [source, *(node.output[0] for node in constants)], [target], name=f"{prefix}/slice"),
    ]
