"""The op in float64 with torch, for sizes at which the NumPy reference takes too long; it runs where its input is.

It takes the regions that the kernels chose and says separately how good that choice is: near-ties that FP32 and float64
order differently would otherwise look like errors of the attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgeformer.models.attention import image_from_regions, regions_from_image
from edgeformer.ops.bi_level_routing_attention import Attributes

__all__ = ["Routing", "attention", "lepe"]

Array = npt.NDArray[Any]

# FP32 rounding of a mean over t tokens and a dot product over the channels, relative to the sum of the products'
# magnitudes: both are summed in trees and in vectors, so a few units in the last place, not their number.
_FP32_ROUNDING = 2.0**-21
# Integers up to here are exact in FP32, and so are sums and products of them that stay below.
_EXACT_INTEGERS = 2.0**24


def _parts(qkv: Tensor, attributes: Attributes) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as they are, each ``[N, P, t, channels]`` in float64."""
    tokens = regions_from_image(qkv.double(), attributes.regions, attributes.regions)
    q, k, v = torch.split(tokens, [attributes.qk_dim] * 2 + [tokens.shape[-1] - 2 * attributes.qk_dim], dim=-1)
    return q, k, v


def attention(qkv: Tensor, attributes: Attributes, indices: Tensor) -> Tensor:
    """``[N, H, W, dim]`` in float64, with the regions given as ``indices`` ``[N, P, topk]``."""
    steps = (attributes.q_scale, attributes.k_scale, attributes.v_scale)
    q, k, v = (part * (step or 1.0) for part, step in zip(_parts(qkv, attributes), steps, strict=True))
    n, p, t, _ = q.shape
    heads = attributes.num_heads
    out = torch.empty_like(v)
    for image in range(n):
        picked = indices[image].long()
        # [P, heads, tokens or keys, channels of a head]
        qs = q[image].reshape(p, t, heads, -1).transpose(1, 2)
        ks = k[image][picked].reshape(p, attributes.topk * t, heads, -1).transpose(1, 2)
        vs = v[image][picked].reshape(p, attributes.topk * t, heads, -1).transpose(1, 2)
        logits = (qs * attributes.scale) @ ks.transpose(2, 3)
        out[image] = (logits.softmax(dim=-1) @ vs).transpose(1, 2).reshape(p, t, -1)
    return image_from_regions(out, attributes.regions, attributes.regions, qkv.shape[1] // attributes.regions)


def lepe(qkv: Tensor, attributes: Attributes, weight: Tensor, bias: Tensor) -> Tensor:
    """``[N, H, W, dim]`` in float64: the depthwise convolution of v with ``weight`` ``[k, k, dim]``, plus ``bias``."""
    v = qkv[..., 2 * attributes.qk_dim :].double() * (attributes.v_scale or 1.0)
    side, dim = weight.shape[0], weight.shape[2]
    kernel = weight.double().permute(2, 0, 1).unsqueeze(1)
    out = functional.conv2d(v.permute(0, 3, 1, 2), kernel, bias.double(), padding=side // 2, groups=dim)
    return out.permute(0, 2, 3, 1)


class Routing:
    """Which regions an input should be routed to, in float64, and what is wrong with a choice of them.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]``.
        attributes: the op's attributes.
        exact: whether every sum is exact in FP32, so that the choice must be the reference's even at ties. Lists of an
            INT8 input whose logits stay below 2^24 always are.
    """

    def __init__(self, qkv: Tensor, attributes: Attributes, *, exact: bool) -> None:
        q, k, _ = _parts(qkv, attributes)
        # As the op's own reference: without scale, steps and number of tokens, which change no order.
        q_sums, k_sums = q.sum(dim=2), k.sum(dim=2).transpose(1, 2)
        self._logits: Array = (q_sums @ k_sums).cpu().numpy()
        products = q.abs().sum(dim=2) @ k.abs().sum(dim=2).transpose(1, 2)
        self._slack: Array = (2 * _FP32_ROUNDING * products).cpu().numpy()
        # What the sum of a logit reaches on its way, in whatever order it is summed, and what rounded sums cost it.
        self._reach: Array = (q_sums.abs() @ k_sums.abs()).cpu().numpy()
        self._exact: Array = np.full(self._logits.shape[:2], exact)
        if attributes.quantized:
            self._exact |= (self._reach < _EXACT_INTEGERS).all(axis=-1)
        # As the op's own reference orders them: NaN first, then the best, equal ones lowest index first.
        nan = np.isnan(self._logits)
        order = np.lexsort((np.where(nan, 0.0, -self._logits), ~nan), axis=-1)
        self.expected: Array = order[..., : attributes.topk]

    def judge(self, indices: Tensor) -> tuple[str, int, int]:
        """The fault of a choice ``[N, P, topk]``, empty if none; lists compared; lists equal in every place."""
        found = indices.cpu().numpy().astype(np.int64)
        lists, regions = found.shape[0] * found.shape[1], self._logits.shape[-1]
        if found.min(initial=0) < 0 or found.max(initial=0) >= regions:
            return f"regions are numbered {found.min()} to {found.max()}; there are {regions}", lists, 0
        same = (found == self.expected).all(axis=-1)
        equal = int(same.sum())
        if differ := int((self._exact & ~same).sum()):
            return f"{differ} of {lists} lists of regions differ where every sum is exact", lists, equal
        wrong = int((self._misplaced(found) & ~same).sum())
        fault = f"{wrong} of {lists} lists of regions are wrong by more than FP32 rounding" if wrong else ""
        return fault, lists, equal

    def _misplaced(self, found: Array) -> Array:
        """Which lists name a region twice, are out of order, or leave out a better one, by more than rounding."""
        logits, slack = self._logits, self._slack
        chosen = np.take_along_axis(logits, found, axis=-1)
        room = np.take_along_axis(slack, found, axis=-1)
        ordered = np.sort(found, axis=-1)
        wrong: Array = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)
        wrong |= (chosen[..., 1:] > chosen[..., :-1] + room[..., 1:] + room[..., :-1]).any(axis=-1)
        wrong |= np.isnan(logits).any(axis=-1)  # NaN has its own place in the order: only the exact list will do
        if found.shape[-1] < logits.shape[-1]:
            left = np.ones(logits.shape, bool)
            np.put_along_axis(left, found, False, axis=-1)
            with np.errstate(invalid="ignore"):  # infinity less infinity, in rows with a NaN logit
                best_left = np.where(left, logits - slack, -np.inf).max(axis=-1)
            wrong |= best_left > (chosen + room).min(axis=-1)
        return wrong

    def settled(self, sum_rounding: float = 0.0) -> Array:
        """Of which regions no rounding changes the set that they attend to, ``[N, P]``.

        Args:
            sum_rounding: relative, of a product of sums over tokens beyond FP32's own.
        """
        slack = self._slack + sum_rounding * self._reach
        if self.expected.shape[-1] == self._logits.shape[-1]:
            return np.ones(self._logits.shape[:2], bool)
        chosen = np.zeros(self._logits.shape, bool)
        np.put_along_axis(chosen, self.expected, True, axis=-1)
        worst = np.where(chosen, self._logits - slack, np.inf).min(axis=-1)
        settled: Array = worst > np.where(chosen, -np.inf, self._logits + slack).max(axis=-1)
        return settled
