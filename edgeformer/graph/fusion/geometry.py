"""The op's attributes, guessed from the shapes of a few tensors and the size of the attention logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeformer.graph.fusion.anchors import Anchors
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import Array
from edgeformer.graph.fusion.projection import Layout, Route, output_widths
from edgeformer.graph.fusion.stacking import Columns
from edgeformer.ops.bi_level_routing_attention import Attributes, reference_routing

__all__ = ["LAYOUTS", "PERM", "Geometry", "Guess", "RejectedError", "geometry_of", "measured_scale"]

LAYOUTS: tuple[Layout, ...] = ("NHWC", "NCHW")
# How to transpose a layout to NHWC.
PERM: dict[Layout, tuple[int, ...]] = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 2, 3, 1)}


class RejectedError(Exception):
    """A guess does not hold. ``progress`` tells how far it got: the reason of the one that got furthest is told."""

    def __init__(self, reason: str, progress: int) -> None:
        super().__init__(reason)
        self.progress = progress


@dataclass(frozen=True)
class Guess:
    """Where the op may start and end.

    Attributes:
        route: the tensor it starts from, and what is done to it before q, k and v part.
        layout: that tensor's layout.
        output: the tensor that is its output.
        output_layout: that one's layout.
        columns: which channels of the projection are q, k and v; None where it makes all of them in that order.
    """

    route: Route
    layout: Layout
    output: str
    output_layout: Layout
    columns: Columns | None = None


@dataclass(frozen=True)
class Geometry:
    """What the shapes say at one set of input shapes.

    Attributes:
        image: shape of the image ``(N, H, W, channels in)``.
        channels: channels of qkv.
        widths: output channels of each of the route's branches; those of the image where it has no Linear.
        attributes: the op's attributes, the scale being the usual one.
    """

    image: tuple[int, int, int, int]
    channels: int
    widths: tuple[int, ...]
    attributes: Attributes


def geometry_of(flow: Dataflow, anchors: Anchors, guess: Guess, shapes: Mapping[str, tuple[int, ...]]) -> Geometry:
    """Read the op's attributes off the shapes of a few tensors.

    Args:
        flow: the graph.
        anchors: the candidate.
        guess: where the op is thought to start and to end.
        shapes: shapes of the candidate's tensors.

    Raises:
        RejectedError: the shapes do not fit the op.
    """
    topk, softmax = flow.nodes[anchors.topk], flow.nodes[anchors.softmax]
    picked_from, picked = shapes[topk.input[0]], shapes[topk.output[1]]
    axis = next((attribute.i for attribute in topk.attribute if attribute.name == "axis"), -1)
    count = picked_from[axis]
    side = math.isqrt(count)
    if side * side != count:
        raise RejectedError(
            f"{count} regions is not a square number; the op has regions x regions of them, as many "
            "rows as columns. Use an input size whose height and width its regions divide alike",
            9,
        )
    image = shapes[guess.route.tensor]
    if len(image) != 4:
        raise RejectedError("q, k and v do not come from a tensor in image layout ([N, H, W, C] or [N, C, H, W])", 0)
    batch, height, width, inner = (image[axis] for axis in PERM[guess.layout])
    if batch * count * count != math.prod(picked_from):
        raise RejectedError("q, k and v do not come from a tensor in image layout ([N, H, W, C] or [N, C, H, W])", 0)
    if height % side or width % side:
        raise RejectedError(
            f"q, k and v come from a tensor of shape {list(image)}, whose height and width {side} x {side} regions do "
            "not divide: they are padded inside the block, after the projection, which the op does not do. Use an "
            "input size that the regions divide, or pad before the projection",
            0,
        )
    result = shapes[guess.output]
    dim, rest = divmod(math.prod(result), batch * height * width)
    expected = tuple((batch, height, width, dim)[i] for i in np.argsort(PERM[guess.output_layout]))
    if rest or result != expected:
        raise RejectedError("the attention output is not brought back to image layout before it is used", 1)
    widths = output_widths(guess.route, shapes) or (inner,)
    channels = sum(widths) if guess.columns is None else len(guess.columns.indices)
    qk_dim, rest = divmod(channels - dim, 2)
    if rest or qk_dim < 1 or (guess.columns is not None and guess.columns.qk_dim != qk_dim):
        raise RejectedError(
            f"{channels} channels of queries, keys and values do not fit an output of {dim}: the op takes as many "
            "queries as keys, and as many values as its output has channels",
            2,
        )
    logits = shapes[softmax.input[0]]
    attended = logits[next((attribute.i for attribute in softmax.attribute if attribute.name == "axis"), -1)]
    tokens = height * width // count
    if attended != picked[axis] * tokens:
        raise RejectedError(
            f"every query sees {attended} keys, not topk * tokens per region = {picked[axis]} * {tokens}: "
            "keys and values are pooled (kv_downsample_mode is not identity) or gathered in another way",
            3,
        )
    heads, rest = divmod(math.prod(logits), batch * height * width * attended)
    if rest or qk_dim % heads or dim % heads:
        raise RejectedError(f"the attention logits {logits} do not fit any number of heads", 3)
    return Geometry(
        (batch, height, width, inner), channels, widths, Attributes(heads, side, picked[axis], qk_dim, qk_dim**-0.5)
    )


def measured_scale(logits: Array, qkv: Array, guessed: Attributes) -> float:
    """The factor on the logits, from their size: however they are laid out, the sum of their squares is the same.

    ``sum((scale * Q K^T) ** 2) = scale ** 2 * sum(Q^T Q * K^T K)``, summed over heads, regions and picked regions.

    Args:
        logits: what the softmax gets, in any layout.
        qkv: ``[N, H, W, 2 * qk_dim + dim]``, of which the block computed them.
        guessed: the attributes, of which the scale is not used.

    Returns:
        The factor, rounded to FP32; one of the usual ones where it is that but for rounding.

    Raises:
        RejectedError: there is no such factor.
    """
    batch, height, width, _ = qkv.shape
    side, heads, qk = guessed.regions, guessed.num_heads, guessed.qk_dim
    tiles = qkv[..., : 2 * qk].astype(np.float64)
    tiles = tiles.reshape(batch, side, height // side, side, width // side, 2, heads, qk // heads)
    tiles = tiles.transpose(5, 0, 1, 3, 6, 2, 4, 7).reshape(2, batch, side * side, heads, -1, qk // heads)
    query, key = (np.swapaxes(part, -1, -2) @ part for part in tiles)
    routing = reference_routing(qkv, guessed)
    picked = np.stack([key[n][routing[n]].sum(axis=1) for n in range(batch)])
    power = float((query * picked).sum())
    scale = math.sqrt(float((logits.astype(np.float64) ** 2).sum()) / power)
    if not (math.isfinite(scale) and scale > 0):
        raise RejectedError(f"the attention logits are {scale} times q @ k", 5)
    dim = qkv.shape[3] - 2 * qk
    usual = [width**-0.5 for width in (qk, qk // heads, dim, dim // heads)]
    nearest = min(usual, key=lambda value: abs(value - scale))
    return float(np.float32(nearest if abs(nearest - scale) < 1e-6 * scale else scale))
