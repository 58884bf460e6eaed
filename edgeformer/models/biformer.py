"""BiFormer in PyTorch: blocks, stages, stem, head. Parameter names are those of the released checkpoints."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgeformer.errors import InputError
from edgeformer.models.attention import (
    BiLevelRoutingAttention,
    BiLevelRoutingAttentionNCHW,
    FullAttention,
    FullAttentionNCHW,
)
from edgeformer.models.config import BiFormerConfig
from edgeformer.models.layers import (
    NORM_EPS,
    DepthwiseConvNHWC,
    LayerNorm2d,
    conv_block,
    depthwise,
    initialize,
    norm2d,
)

__all__ = ["BiFormer"]


def _attention(config: BiFormerConfig, stage: int) -> nn.Module:
    """The NHWC attention of a stage's blocks, or what replaces it."""
    dim, topk = config.dims[stage], config.topks[stage]
    if topk == 0:
        return conv_block(dim)
    if topk < 0:
        return FullAttention(dim, lepe_kernel=config.lepe_kernel if topk == -2 else 0)
    return BiLevelRoutingAttention(
        dim,
        num_heads=config.routing_heads[stage],
        regions=config.regions[stage],
        topk=topk,
        qk_dim=config.query_dims[stage],
        scale=config.qk_scale,
        lepe_kernel=config.lepe_kernel,
        output_projection=config.output_projection,
        auto_pad=config.auto_pad,
    )


class Block(nn.Module):
    """A block of the "biformer" layout: convolution, attention and MLP, each with a residual. NCHW in and out."""

    def __init__(self, config: BiFormerConfig, stage: int) -> None:
        super().__init__()
        dim = config.dims[stage]
        hidden = int(config.mlp_ratios[stage] * dim)
        self.pre_norm = config.pre_norm
        self.pos_embed = depthwise(dim, config.pos_embed_kernel) if config.pos_embed_kernel else None
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = _attention(config, stage)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            DepthwiseConvNHWC(hidden) if config.mlp_dwconv else nn.Identity(),
            nn.GELU(),
            nn.Linear(hidden, dim),
        )
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if config.layer_scale > 0:
            self.gamma1 = nn.Parameter(torch.full((dim,), float(config.layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((dim,), float(config.layer_scale)))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, dim, H, W]`` to the same, float."""
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        x = x.permute(0, 2, 3, 1)
        x = self._residual(x, self.norm1, self.attn, self.gamma1)
        x = self._residual(x, self.norm2, self.mlp, self.gamma2)
        return x.permute(0, 3, 1, 2)

    def _residual(self, x: Tensor, norm: nn.Module, branch: nn.Module, gamma: Tensor | None) -> Tensor:
        y: Tensor = branch(norm(x) if self.pre_norm else x)
        x = x + (y if gamma is None else gamma * y)
        return x if self.pre_norm else norm(x)


class BlockSTL(nn.Module):
    """A block of the "stl" layout: attention and MLP with pre-norm. NHWC in and out."""

    def __init__(self, config: BiFormerConfig, stage: int) -> None:
        super().__init__()
        dim = config.dims[stage]
        hidden = int(config.mlp_ratios[stage] * dim)
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = _attention(config, stage)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, H, W, dim]`` to the same, float."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class BlockSTLNCHW(nn.Module):
    """A block of the "stl_nchw" layout: as "stl", but NCHW throughout, 1x1 convolutions, LayerNorm over channels."""

    def __init__(self, config: BiFormerConfig, stage: int) -> None:
        super().__init__()
        dim = config.dims[stage]
        hidden = int(config.mlp_ratios[stage] * dim)
        self.norm1 = LayerNorm2d(dim)
        self.attn: nn.Module
        if config.topks[stage] > 0:
            self.attn = BiLevelRoutingAttentionNCHW(
                dim,
                num_heads=config.routing_heads[stage],
                regions=config.regions[stage],
                topk=config.topks[stage],
                lepe_kernel=config.lepe_kernel,
            )
        else:
            self.attn = FullAttentionNCHW(dim)
        self.norm2 = LayerNorm2d(dim)
        self.mlp = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.Conv2d(hidden, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, dim, H, W]`` to the same, float."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class StageSTL(nn.Module):
    """The blocks of an STL stage, under ``blocks`` as checkpoints have them. NCHW in and out."""

    def __init__(self, config: BiFormerConfig, stage: int) -> None:
        super().__init__()
        self.channels_last = config.layout == "stl"
        block = BlockSTL if self.channels_last else BlockSTLNCHW
        self.blocks = nn.ModuleList(block(config, stage) for _ in range(config.depths[stage]))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, dim, H, W]`` to the same, float."""
        if self.channels_last:
            x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2) if self.channels_last else x


def _downsampling(config: BiFormerConfig) -> nn.ModuleList:
    """The stem and the three layers between the stages."""
    dims = config.dims
    if config.layout == "biformer":
        half = dims[0] // 2
        layers = [
            nn.Sequential(
                nn.Conv2d(config.in_channels, half, 3, stride=2, padding=1),
                nn.BatchNorm2d(half),
                nn.GELU(),
                nn.Conv2d(half, dims[0], 3, stride=2, padding=1),
                nn.BatchNorm2d(dims[0]),
            )
        ]
        layers += [
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after))
            for before, after in pairwise(dims)
        ]
    else:
        layers = [
            nn.Sequential(
                nn.Conv2d(config.in_channels, dims[0], 4, stride=4),
                norm2d(config.norm, dims[0]),
            )
        ]
        layers += [
            nn.Sequential(norm2d(config.norm, before), nn.Conv2d(before, after, 2, stride=2))
            for before, after in pairwise(dims)
        ]
    return nn.ModuleList(layers)


class BiFormer(nn.Module):
    """A BiFormer of any layout.

    Call it with images ``[N, in_channels, H, W]``, float. It returns ``[N, num_classes]`` logits (the pooled features
    if ``num_classes`` is 0), or, for a dense model, the four stages' feature maps ``[N, dims[i], H_i, W_i]``.

    Attributes:
        config: what the model was built from.
    """

    def __init__(self, config: BiFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.downsample_layers = _downsampling(config)
        if config.layout == "biformer":
            stages: list[nn.Module] = [
                nn.Sequential(*(Block(config, stage) for _ in range(depth)))
                for stage, depth in enumerate(config.depths)
            ]
        else:
            stages = [StageSTL(config, stage) for stage in range(len(config.depths))]
        self.stages = nn.ModuleList(stages)
        if config.dense:
            self.extra_norms = nn.ModuleList(LayerNorm2d(dim) for dim in config.dims)
        else:
            self.norm = norm2d(config.head_norm or config.norm, config.dims[-1])
            self.head = nn.Linear(config.dims[-1], config.num_classes) if config.num_classes else nn.Identity()
        self.apply(initialize)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the model.

        Raises:
            InputError: the input is not ``[N, in_channels, H, W]``, or the model cannot take its height and width.
        """
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            raise InputError(
                "EF204",
                f"the input has shape {list(x.shape)}; the model takes [N, {self.config.in_channels}, height, width]",
            )
        self.config.check_input_size(x.shape[2], x.shape[3])
        features = []
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
            features.append(x)
        if self.config.dense:
            return tuple(norm(feature) for norm, feature in zip(self.extra_norms, features, strict=True))
        x = self.norm(x).mean(dim=(2, 3))
        logits: Tensor = self.head(x)
        return logits
