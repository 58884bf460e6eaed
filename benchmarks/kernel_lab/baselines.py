"""What the fused kernels are measured against: the same op, as one would write it with PyTorch.

All take ``qkv`` ``[N, H, W, 3 * dim]`` and give ``[N, H, W, dim]``. "eager" and "compile" are the model's own
attention; "sdpa" gathers keys and values and calls scaled_dot_product_attention; "flex" gives FlexAttention a block
mask made from the same top-k, so that nothing is gathered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from benchmarks.kernel_lab.shapes import Shape
from edgeformer.models.attention import (
    bi_level_routing_attention,
    gather_regions,
    image_from_regions,
    regions_from_image,
)

__all__ = ["Baseline", "compiled", "conv_lepe", "eager", "flex", "sdpa"]

Baseline = Callable[[Tensor], Tensor]
# FlexAttention's tiles are at most this large; its blocks must be whole tiles.
_FLEX_BLOCK = 128
# What the backward pass needs is left out where this torch can leave it out.
_FORWARD_ONLY: dict[str, Any] = (
    {"compute_q_blocks": False} if "compute_q_blocks" in inspect.signature(BlockMask.from_kv_blocks).parameters else {}
)


def eager(shape: Shape) -> Baseline:
    """The model's own attention, op by op."""
    attributes = shape.attributes()

    def run(qkv: Tensor) -> Tensor:
        return bi_level_routing_attention(
            qkv,
            num_heads=attributes.num_heads,
            regions=attributes.regions,
            topk=attributes.topk,
            qk_dim=attributes.qk_dim,
            scale=attributes.scale,
        )

    return run


def compiled(shape: Shape, backend: str) -> Baseline:
    """The model's own attention under torch.compile, for fixed sizes."""
    return torch.compile(eager(shape), backend=backend, dynamic=False)


def _tokens_and_route(qkv: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``[N, P, t, dim]``, keys and values ``[N, P, t, 2 * dim]``, regions ``[N, P, topk]``."""
    tokens = regions_from_image(qkv, shape.regions, shape.regions)
    q, kv = torch.split(tokens, [shape.dim, 2 * shape.dim], dim=-1)
    means = tokens[..., : 2 * shape.dim].mean(dim=2, dtype=torch.float32)
    logits = (means[..., : shape.dim] * shape.dim**-0.5) @ means[..., shape.dim :].transpose(1, 2)
    return q, kv, logits.topk(shape.topk, dim=-1).indices


def sdpa(shape: Shape) -> Baseline:
    """Gather keys and values of the routed regions, then scaled_dot_product_attention over a batch of regions."""

    def run(qkv: Tensor) -> Tensor:
        q, kv, indices = _tokens_and_route(qkv, shape)
        n, p, t, dim = q.shape
        gathered = gather_regions(kv, indices)

        def heads(x: Tensor) -> Tensor:
            return x.reshape(n * p, x.shape[2], shape.num_heads, shape.head_dim).transpose(1, 2)

        k, v = torch.split(gathered, dim, dim=-1)
        out = functional.scaled_dot_product_attention(heads(q), heads(k), heads(v), scale=dim**-0.5)
        out = out.transpose(1, 2).reshape(n, p, t, dim)
        return image_from_regions(out, shape.regions, shape.regions, shape.height // shape.regions)

    return run


def flex(shape: Shape, *, compile_kernel: bool) -> Baseline:
    """FlexAttention over all tokens in region order, with a block mask from the top-k.

    Where a region is no whole number of tiles, blocks hold parts of several regions and a mask function decides inside
    them; blocks that every query attends to skip it.
    """
    attend: Any = torch.compile(flex_attention, dynamic=False) if compile_kernel else flex_attention

    def run(qkv: Tensor) -> Tensor:
        q, kv, indices = _tokens_and_route(qkv, shape)
        n, p, t, dim = q.shape
        k, v = torch.split(kv, dim, dim=-1)

        def heads(x: Tensor) -> Tensor:
            return x.reshape(n, p * t, shape.num_heads, shape.head_dim).transpose(1, 2)

        mask = block_mask(indices, p, t)
        out = attend(heads(q), heads(k), heads(v), block_mask=mask, scale=dim**-0.5)
        out = out.transpose(1, 2).reshape(n, p, t, dim)
        return image_from_regions(out, shape.regions, shape.regions, shape.height // shape.regions)

    return run


def block_mask(indices: Tensor, regions: int, tokens: int) -> BlockMask:
    """The block mask of a routing, made without a mask of all queries and keys (det stage 1 has 70 000 of each).

    Args:
        indices: ``[N, regions, topk]``, the regions each region attends to.
        regions: of an image.
        tokens: of a region; the sequence is region after region.
    """
    n, device = indices.shape[0], indices.device
    length = regions * tokens
    selected = torch.zeros(n, regions, regions, dtype=torch.bool, device=device).scatter_(2, indices, True)
    blocks = -(-length // _FLEX_BLOCK)
    # How many tokens of a region lie in a block; float32 counts exactly what an FP32 product of them sums up.
    starts = torch.arange(blocks, device=device)[:, None] * _FLEX_BLOCK
    first = torch.arange(regions, device=device)[None, :] * tokens
    overlap = (starts + _FLEX_BLOCK).minimum(first + tokens) - starts.maximum(first)
    inside = (overlap > 0).float()
    pairs = inside @ selected.float() @ inside.T
    possible = inside.sum(1)[:, None] * inside.sum(1)[None, :]
    # The last block is never taken as full: it may reach past the end.
    whole = (starts.squeeze(1) + _FLEX_BLOCK) <= length
    full = (pairs == possible) & whole[:, None] & whole[None, :]
    partial = (pairs > 0) & ~full

    def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
        order = chosen.int().argsort(dim=-1, descending=True, stable=True).int()
        return chosen.sum(-1).int().unsqueeze(1), order.unsqueeze(1)

    def attends(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return selected[b, query // tokens, key // tokens]

    return BlockMask.from_kv_blocks(
        *listed(partial),
        *listed(full),
        BLOCK_SIZE=_FLEX_BLOCK,
        mask_mod=attends,
        seq_lengths=(length, length),
        **_FORWARD_ONLY,
    )


def conv_lepe(shape: Shape, attention: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor) -> Baseline:
    """``attention`` plus LePE by torch's depthwise convolution, as the model computes it.

    Args:
        shape: of the routing attention.
        attention: gives ``[N, H, W, dim]``.
        weight: ``[dim, 1, k, k]``.
        bias: ``[dim]``.
    """

    def run(qkv: Tensor) -> Tensor:
        v = qkv[..., 2 * shape.dim :].permute(0, 3, 1, 2)
        lepe = functional.conv2d(v, weight, bias, padding=weight.shape[-1] // 2, groups=shape.dim)
        return attention(qkv) + lepe.permute(0, 2, 3, 1)

    return run
