"""The small modules that every layout shares, in both memory layouts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NORM_EPS", "DepthwiseConvNHWC", "LayerNorm2d", "Permute", "conv_block", "depthwise", "norm2d"]

NORM_EPS = 1e-6
"""Epsilon of every LayerNorm of the released models (PyTorch's default is 1e-5)."""


class Permute(nn.Module):
    """Reorder the axes of a tensor inside a Sequential."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with axis ``axes[i]`` in place ``i``."""
        return x.permute(self.axes)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW tensor, epsilon 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same, float."""
        x = x.permute(0, 2, 3, 1)
        x = functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def norm2d(kind: str, channels: int) -> nn.Module:
    """A norm over NCHW: "batch" or "layer"."""
    return nn.BatchNorm2d(channels) if kind == "batch" else LayerNorm2d(channels)


def depthwise(channels: int, kernel: int) -> nn.Conv2d:
    """Depthwise convolution, odd ``kernel``, that keeps height and width."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


class DepthwiseConvNHWC(nn.Module):
    """Depthwise 3x3 convolution of an NHWC tensor (``mlp_dwconv``)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = depthwise(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, height, width, channels]`` to the same, float."""
        y: Tensor = self.dwconv(x.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1)


def conv_block(channels: int) -> nn.Sequential:
    """What topk 0 puts in attention's place (NHWC): 1x1, depthwise 5x5, 1x1; parameters at indices 1, 2 and 3."""
    return nn.Sequential(
        Permute(0, 3, 1, 2),
        nn.Conv2d(channels, channels, 1),
        depthwise(channels, 5),
        nn.Conv2d(channels, channels, 1),
        Permute(0, 2, 3, 1),
    )


def initialize(module: nn.Module) -> None:
    """Linear weights from a truncated normal of deviation 0.02 and biases 0; everything else as PyTorch does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)
