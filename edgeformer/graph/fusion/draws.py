"""Random inputs on which a wrong block cannot look right.

Three things make an input useless for a proof: regions whose mean keys are alike, so that the routing is a near-tie and
rounding decides it; logits so small that the softmax is uniform and neither scale nor heads matter; logits so large
that it is one-hot. So: region means are drawn first and apart from the tokens, drawn again until the gap between the
last region picked and the first one not picked is decisive in every row, tokens scatter around them with zero mean, and
queries and keys are sized for attention logits of about `_LOGIT_DEVIATION`.

Where the block contains the qkv Linear, its weight and bias are drawn as well: the proof then holds for every weight,
and a Linear whose trained weights happen to hide a difference cannot hide it here. Tensors that several Linears share
are drawn once (`Wiring`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeformer.graph.fusion.execution import Array
from edgeformer.graph.fusion.wiring import Wiring
from edgeformer.ops.bi_level_routing_attention import Attributes

__all__ = ["Draw", "draw_block_input"]

_LOGIT_DEVIATION = 1.5
# Smallest gap between the last region picked and the next, as a fraction of the greatest logit. FP32 sums of a few
# hundred terms are good to about 1e-6 of it. With many regions the logits lie closer together.
_GAP = 1e-4
_GAP_TIMES_REGIONS = 6e-3
_MAX_REDRAWS = 1000


@dataclass(frozen=True)
class Draw:
    """One random input.

    Attributes:
        image: ``[N, H, W, channels in]`` float32, what the projection gets.
        weight: ``[channels in, wiring.width]`` float32; None where the block contains no Linear.
        bias: ``[wiring.entries]`` float32; None where the block contains no bias.
        qkv: ``[N, H, W, 2 * qk_dim + dim]`` float32, what the projection makes of it.
    """

    image: Array
    weight: Array | None
    bias: Array | None
    qkv: Array


def draw_block_input(
    rng: np.random.Generator,
    attributes: Attributes,
    shape: tuple[int, int, int, int],
    wiring: Wiring,
) -> Draw | None:
    """Draw an input for a block.

    Args:
        rng: source of randomness.
        attributes: the block's attributes, as far as they were derived.
        shape: ``(N, H, W, channels in)`` of the projection's input.
        wiring: what makes the ``2 * qk_dim + dim`` channels of qkv.

    Returns:
        The draw; None where no decisive routing was found, as when a Linear of rank one makes all regions alike.
    """
    batch, height, width, inner = shape
    side, qk = attributes.regions, attributes.qk_dim
    regions = side * side
    # q and k entries get variance 2 a ** 2 (mean and scatter): the dot product over a head deviates by 2 a ** 2
    # sqrt(d).
    size = math.sqrt(_LOGIT_DEVIATION / (2 * math.sqrt(qk / attributes.num_heads) * attributes.scale))
    wanted = np.ones(len(wiring.columns))
    wanted[: 2 * qk] = size
    gains = _least(wanted, wiring.columns, wiring.width)
    weight = rng.standard_normal((inner, wiring.width)) / math.sqrt(inner) * gains if wiring.linear else None
    entries = rng.standard_normal(wiring.entries) / 2 * _least(wanted, wiring.biases, wiring.entries)
    # The entry that stands for no bias is the last one.
    offset = np.append(entries, 0.0)[wiring.biases].sum(axis=0)

    def project(x: Array) -> Array:
        made = x * gains if weight is None else x @ weight
        return np.asarray(made[..., wiring.columns] + offset)

    means = rng.standard_normal((batch, regions, inner))
    for _ in range(_MAX_REDRAWS):
        projected = project(means)
        logits = projected[..., :qk] @ projected[..., qk : 2 * qk].transpose(0, 2, 1)
        tied = _undecided(logits, attributes.topk)
        if not tied.any():
            break
        means[tied] = rng.standard_normal((int(tied.sum()), inner))
    else:
        return None
    scatter = rng.standard_normal((batch, side, height // side, side, width // side, inner))
    scatter -= scatter.mean(axis=(2, 4), keepdims=True)
    image = (scatter + means.reshape(batch, side, 1, side, 1, inner)).reshape(shape)
    if weight is None:
        image = image * gains
    narrow = image.astype(np.float32)
    made = narrow if weight is None else narrow @ weight.astype(np.float32)
    return Draw(
        narrow,
        None if weight is None else weight.astype(np.float32),
        entries.astype(np.float32) if wiring.entries else None,
        made[..., wiring.columns] + offset.astype(np.float32),
    )


def _least(wanted: Array, uses: npt.NDArray[np.int64], count: int) -> Array:
    """The least of the gains that are ``wanted`` where something is used, for each of ``count`` things; -1 is none."""
    found = np.full(count + 1, np.inf)
    np.minimum.at(found, uses, np.broadcast_to(wanted, uses.shape))
    return np.where(np.isfinite(found), found, 1.0)[:count]


def _undecided(logits: Array, topk: int) -> Array:
    """Rows ``[N, P]`` whose last pick is too close to the first region not picked; logits are ``[N, P, P]``."""
    regions = logits.shape[-1]
    if topk == regions:
        return np.zeros(logits.shape[:2], dtype=bool)
    ordered = np.sort(logits, axis=-1)
    gaps = ordered[..., regions - topk] - ordered[..., regions - topk - 1]
    needed: Array = gaps <= min(_GAP, _GAP_TIMES_REGIONS / regions) * np.abs(logits).max()
    return needed
