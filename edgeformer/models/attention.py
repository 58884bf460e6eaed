"""Bi-level routing attention (BRA) in plain PyTorch, and the full attention of the last stage.

Written to be read, and to be exported: no branch depends on data. In the shapes, there are N images of H x W tokens and
P regions of t tokens each (P = regions * regions), and a query sees L = topk * t keys. Source: Zhu et al., "BiFormer:
Vision Transformer with Bi-Level Routing Attention", CVPR 2023, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeformer.errors import InputError
from edgeformer.models.config import FULL_ATTENTION_HEADS
from edgeformer.models.fused_attention import fused_bi_level_routing_attention
from edgeformer.models.layers import depthwise
from edgeformer.ops.bi_level_routing_attention import MAX_LEPE_KERNEL
from edgeformer.ops.library import default_library

__all__ = [
    "ATTENTION_KINDS",
    "BiLevelRoutingAttention",
    "BiLevelRoutingAttentionNCHW",
    "FullAttention",
    "FullAttentionNCHW",
    "bi_level_routing_attention",
    "gather_regions",
    "regions_from_image",
    "use_attention",
]

ATTENTION_KINDS = ("reference", "fused")


def regions_from_image(x: Tensor, rows: int, columns: int) -> Tensor:
    """Cut ``[N, H, W, C]`` into ``rows`` x ``columns`` regions ``[N, P, t, C]``, all in reading order."""
    n, h, w, c = x.shape
    x = x.reshape(n, rows, h // rows, columns, w // columns, c).transpose(2, 3)
    return x.reshape(n, rows * columns, (h // rows) * (w // columns), c)


def image_from_regions(x: Tensor, rows: int, columns: int, region_height: int) -> Tensor:
    """Undo :func:`regions_from_image`: ``[N, P, t, C]`` to ``[N, H, W, C]``."""
    n, _, t, c = x.shape
    region_width = t // region_height
    x = x.reshape(n, rows, columns, region_height, region_width, c).transpose(2, 3)
    return x.reshape(n, rows * region_height, columns * region_width, c)


def gather_regions(x: Tensor, indices: Tensor) -> Tensor:
    """For each region the tokens of its top-k regions.

    Args:
        x: ``[N, P, t, C]``, tokens by region.
        indices: ``[N, P, topk]`` int64, the regions each region looks at.

    Returns:
        ``[N, P, L, C]``.
    """
    n, p, t, c = x.shape
    topk = indices.shape[2]
    # One row is a whole region: gathering from [N, P, P, t, C] is the same and, on a CPU, 60 times slower to train.
    rows = indices.reshape(n, p * topk, 1).expand(-1, -1, t * c)
    return x.reshape(n, p, t * c).gather(1, rows).reshape(n, p, topk * t, c)


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, scale: float) -> Tensor:
    """Multi-head attention of each region's queries over the keys gathered for it.

    Args:
        q: ``[N, P, t, qk_dim]`` float.
        k: ``[N, P, L, qk_dim]`` float.
        v: ``[N, P, L, dim]`` float.
        num_heads: heads; channels of a head are contiguous.
        scale: factor on the logits.

    Returns:
        ``[N, P, t, dim]`` float: ``softmax(scale * q @ k^T) @ v`` for every head.
    """
    n, p, t, qk_dim = q.shape
    keys, dim = v.shape[2], v.shape[3]
    q = q.reshape(n, p, t, num_heads, qk_dim // num_heads).transpose(2, 3)  # [N, P, heads, t, c]
    k = k.reshape(n, p, keys, num_heads, qk_dim // num_heads).permute(0, 1, 3, 4, 2)  # [N, P, heads, c, L]
    v = v.reshape(n, p, keys, num_heads, dim // num_heads).transpose(2, 3)  # [N, P, heads, L, c]
    weights = ((q * scale) @ k).softmax(dim=-1)
    return (weights @ v).transpose(2, 3).reshape(n, p, t, dim)


def bi_level_routing_attention(
    qkv: Tensor, *, num_heads: int, regions: int, topk: int, qk_dim: int, scale: float
) -> Tensor:
    """The op ``edgeformer::BiLevelRoutingAttention`` as PyTorch code.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]`` float; H and W are multiples of ``regions``.
        num_heads: heads of the token attention; routing uses all channels at once.
        regions: regions per side.
        topk: regions each region attends to.
        qk_dim: channels of q and of k.
        scale: factor on routing logits and attention logits.

    Returns:
        ``[N, H, W, dim]`` float.
    """
    height, dim = qkv.shape[1], qkv.shape[3] - 2 * qk_dim
    q, kv = torch.split(regions_from_image(qkv, regions, regions), [qk_dim, qk_dim + dim], dim=-1)
    # Routing is a choice, not a function to learn through: no gradient, as in the paper (appendix A).
    q_region = q.detach().mean(dim=2)  # [N, P, qk_dim]
    k_region = kv.detach()[..., :qk_dim].mean(dim=2)
    logits = (q_region * scale) @ k_region.transpose(1, 2)  # [N, P, P]
    indices = logits.topk(topk, dim=-1).indices
    k, v = torch.split(gather_regions(kv, indices), [qk_dim, dim], dim=-1)
    out = attend(q, k, v, num_heads, scale)
    return image_from_regions(out, regions, regions, height // regions)


def use_attention(model: nn.Module, kind: str) -> None:
    """Choose what computes the routing attention of every block of ``model``.

    Args:
        model: any module.
        kind: "reference" (the code here) or "fused" (the CUDA kernels of the plugin library, forward only).

    Raises:
        InputError: there is no such kind.
        EnvironmentFault: ``kind`` is "fused" and the plugin library is missing or cannot be loaded.
    """
    if kind not in ATTENTION_KINDS:
        raise InputError("EF201", f"attention is {kind!r}; it must be one of {', '.join(map(repr, ATTENTION_KINDS))}")
    if kind == "fused":
        default_library()
    for module in model.modules():
        if isinstance(module, (BiLevelRoutingAttention, BiLevelRoutingAttentionNCHW)):
            module.fused = kind == "fused"


def _attend_to_regions(
    block: BiLevelRoutingAttention | BiLevelRoutingAttentionNCHW, qkv: Tensor, qk_dim: int
) -> Tensor:
    """``[N, H, W, 2 * qk_dim + dim]`` to ``[N, H, W, dim]`` by what computes the block's attention."""
    heads, regions, topk, scale = block.num_heads, block.regions, block.topk, block.scale
    if not block.fused:
        return bi_level_routing_attention(qkv, num_heads=heads, regions=regions, topk=topk, qk_dim=qk_dim, scale=scale)
    lepe = block.lepe if _fuses_lepe(block) else None
    return fused_bi_level_routing_attention(
        qkv,
        num_heads=heads,
        regions=regions,
        topk=topk,
        qk_dim=qk_dim,
        scale=scale,
        lepe_weight=None if lepe is None else lepe.weight,
        lepe_bias=None if lepe is None else lepe.bias,
    )


def _fuses_lepe(block: BiLevelRoutingAttention | BiLevelRoutingAttentionNCHW) -> bool:
    """Whether the output of `_attend_to_regions` includes LePE."""
    return block.fused and block.lepe is not None and block.lepe.kernel_size[0] <= MAX_LEPE_KERNEL


class _QKV(nn.Module):
    """The qkv Linear under the name that checkpoints know: ``attn.qkv.qkv``."""

    def __init__(self, dim: int, qk_dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 2 * qk_dim + dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.qkv(x)
        return y


class BiLevelRoutingAttention(nn.Module):
    """BRA with its projections and LePE, NHWC: ``wo(BRA(qkv(x)) + lepe(v))``.

    With ``auto_pad`` the *input* is padded with zeros at the right and the bottom to a multiple of ``regions``: padded
    tokens become the qkv Linear's bias and take part in routing and attention, as in the models trained this way.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        regions: int,
        topk: int,
        qk_dim: int,
        scale: float | None,
        lepe_kernel: int,
        output_projection: bool,
        auto_pad: bool,
    ) -> None:
        super().__init__()
        self.num_heads, self.regions, self.topk, self.qk_dim = num_heads, regions, topk, qk_dim
        self.scale = qk_dim**-0.5 if scale is None else scale
        self.auto_pad = auto_pad
        self.fused = False
        self.qkv = _QKV(dim, qk_dim)
        self.lepe = depthwise(dim, lepe_kernel) if lepe_kernel else None
        self.wo = nn.Linear(dim, dim) if output_projection else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H, W, dim]`` to the same, float."""
        _, height, width, _ = x.shape
        if self.auto_pad:
            x = functional.pad(x, (0, 0, 0, -width % self.regions, 0, -height % self.regions))
        qkv = self.qkv(x)
        out = _attend_to_regions(self, qkv, self.qk_dim)
        if self.lepe is not None and not _fuses_lepe(self):
            v = qkv[..., 2 * self.qk_dim :]
            out = out + self.lepe(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y: Tensor = self.wo(out)
        return y[:, :height, :width] if self.auto_pad else y


class BiLevelRoutingAttentionNCHW(nn.Module):
    """BRA of the "stl_nchw" layout: 1x1 convolutions, and regions of ``H // regions`` x ``W // regions`` tokens.

    Where that does not cover the image there are more regions than ``regions`` per side, and q, k and v are padded with
    zeros *after* the projection. Padded keys are not masked, but the region means that decide the routing leave padded
    tokens out. LePE sees the unpadded v.
    """

    def __init__(self, dim: int, *, num_heads: int, regions: int, topk: int, lepe_kernel: int) -> None:
        super().__init__()
        self.num_heads, self.regions, self.topk = num_heads, regions, topk
        self.scale = dim**-0.5
        self.fused = False
        self.qkv_linear = nn.Conv2d(dim, 3 * dim, 1)
        self.lepe = depthwise(dim, lepe_kernel) if lepe_kernel else None
        self.output_linear = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, dim, H, W]`` to the same, float."""
        _, dim, height, width = x.shape
        projected = self.qkv_linear(x)
        qkv = projected.permute(0, 2, 3, 1)  # [N, H, W, 3 * dim]
        # Where regions do not divide the map, padding and means follow other rules than the op's: never fused.
        divisible = height % self.regions == 0 and width % self.regions == 0
        out = _attend_to_regions(self, qkv, dim) if divisible else self._attend_padded(qkv)
        out = out.permute(0, 3, 1, 2)
        if self.lepe is not None and not (divisible and _fuses_lepe(self)):
            out = out + self.lepe(projected[:, 2 * dim :])
        y: Tensor = self.output_linear(out)
        return y

    def _attend_padded(self, qkv: Tensor) -> Tensor:
        """``[N, H, W, 3 * dim]`` to ``[N, H, W, dim]`` for sizes that the regions do not divide."""
        _, height, width, channels = qkv.shape
        dim = channels // 3
        region_height, region_width = height // self.regions, width // self.regions
        pad_bottom, pad_right = -height % region_height, -width % region_width
        rows, columns = (height + pad_bottom) // region_height, (width + pad_right) // region_width
        padding = (0, 0, 0, pad_right, 0, pad_bottom)
        tokens = regions_from_image(functional.pad(qkv, padding), rows, columns)  # [N, P, t, 3 * dim]
        # How many tokens of each region are real.
        ones = torch.ones(1, height, width, 1, dtype=qkv.dtype, device=qkv.device)
        real = regions_from_image(functional.pad(ones, padding), rows, columns).sum(dim=2)  # [1, P, 1]
        means = tokens.detach()[..., : 2 * dim].sum(dim=2) / real
        q_region, k_region = torch.split(means, dim, dim=-1)
        indices = ((q_region * self.scale) @ k_region.transpose(1, 2)).topk(self.topk, dim=-1).indices
        q, kv = torch.split(tokens, [dim, 2 * dim], dim=-1)
        k, v = torch.split(gather_regions(kv, indices), dim, dim=-1)
        out = attend(q, k, v, self.num_heads, self.scale)
        return image_from_regions(out, rows, columns, region_height)[:, :height, :width]


class FullAttention(nn.Module):
    """Attention of every token over all tokens, NHWC, 8 heads: ``proj(attention(qkv(x)) + lepe(x))``.

    LePE acts on the *input* here, and ``qkv`` has no bias, as in the released checkpoints.
    """

    def __init__(self, dim: int, *, lepe_kernel: int) -> None:
        super().__init__()
        self.num_heads = FULL_ATTENTION_HEADS
        self.scale = (dim // FULL_ATTENTION_HEADS) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.lepe = depthwise(dim, lepe_kernel) if lepe_kernel else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H, W, dim]`` to the same, float."""
        n, height, width, dim = x.shape
        q, k, v = torch.split(self.qkv(x).reshape(n, 1, height * width, 3 * dim), dim, dim=-1)
        out = attend(q, k, v, self.num_heads, self.scale).reshape(n, height, width, dim)
        if self.lepe is not None:
            out = out + self.lepe(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y: Tensor = self.proj(out)
        return y


class FullAttentionNCHW(nn.Module):
    """Full attention of the "stl_nchw" layout: 1x1 convolutions, 8 heads, LePE (always 5x5 there) on v."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_heads = FULL_ATTENTION_HEADS
        self.scale = (dim // FULL_ATTENTION_HEADS) ** -0.5
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.lepe = depthwise(dim, 5)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, dim, H, W]`` to the same, float."""
        n, dim, height, width = x.shape
        projected = self.qkv(x)
        tokens = projected.permute(0, 2, 3, 1).reshape(n, 1, height * width, 3 * dim)
        q, k, v = torch.split(tokens, dim, dim=-1)
        out = attend(q, k, v, self.num_heads, self.scale).reshape(n, height, width, dim).permute(0, 3, 1, 2)
        y: Tensor = self.proj(out + self.lepe(projected[:, 2 * dim :]))
        return y
