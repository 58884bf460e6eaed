"""A small one-stage detector with bi-level routing attention at strides 16 and 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeformer.models.attention import BiLevelRoutingAttention
from edgeformer.models.layers import LayerNorm2d

__all__ = ["STRIDES", "Detector", "cell_centres"]

STRIDES = (8, 16, 32)
"""Pixels of the image to a cell of each map that the heads look at."""

# As the detection community sets BiFormer's block: 7 x 7 regions, of which each attends to 4.
_REGIONS, _TOPK, _HEAD_CHANNELS = 7, 4, 32


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU; a stride of 2 halves the map, rounding up."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class CrossStage(nn.Module):
    """Half of the channels pass two 3x3 convolutions with a residual, half pass by, and 1x1 mixes them (CSP)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.worked, self.passed = _convolution(inputs, half), _convolution(inputs, half)
        self.residual = nn.Sequential(_convolution(half, half, 3), _convolution(half, half, 3))
        self.mixed = _convolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``, float."""
        worked = self.worked(x)
        y: Tensor = self.mixed(torch.cat((worked + self.residual(worked), self.passed(x)), dim=1))
        return y


class RoutingBlock(nn.Module):
    """BRA with its norm and residual, as one puts it into a network of convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.attention = BiLevelRoutingAttention(
            channels,
            num_heads=channels // _HEAD_CHANNELS,
            regions=_REGIONS,
            topk=_TOPK,
            qk_dim=channels,
            scale=None,
            lepe_kernel=3,
            output_projection=True,
            auto_pad=True,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same, float; H and W as they come."""
        attended: Tensor = self.attention(self.norm(x).permute(0, 2, 3, 1))
        return x + attended.permute(0, 3, 1, 2)


class Head(nn.Module):
    """What each cell says: how many cells away the sides of its box are, and what is in it."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.distances = nn.Sequential(_convolution(channels, channels, 3), nn.Conv2d(channels, 4, 1))
        last = nn.Conv2d(channels, classes, 1)
        self.logits = nn.Sequential(_convolution(channels, channels, 3), last)
        if last.bias is not None:
            # Nearly every cell is empty: a network that says so from the start learns sooner.
            nn.init.constant_(last.bias, -4.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, channels, H, W]`` to ``[N, H * W, 4]`` (left, top, right, bottom), ``[N, H * W, classes]``."""
        distances = functional.softplus(self.distances(x))
        return distances.flatten(2).transpose(1, 2), self.logits(x).flatten(2).transpose(1, 2)


class Detector(nn.Module):
    """Backbone to stride 32, top-down neck, three heads.

    Args:
        classes: kinds of objects.
        width: channels at stride 4; twice as many at stride 8, and so on. A multiple of 16.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        c4, c8, c16, c32 = width, 2 * width, 4 * width, 8 * width
        self.stride8 = nn.Sequential(
            _convolution(3, c4 // 2, 3, 2),
            _convolution(c4 // 2, c4, 3, 2),
            CrossStage(c4, c4),
            _convolution(c4, c8, 3, 2),
            CrossStage(c8, c8),
        )
        self.stride16 = nn.Sequential(_convolution(c8, c16, 3, 2), CrossStage(c16, c16), RoutingBlock(c16))
        self.stride32 = nn.Sequential(_convolution(c16, c32, 3, 2), CrossStage(c32, c32), RoutingBlock(c32))
        self.lateral32, self.lateral16, self.lateral8 = (_convolution(c, c8) for c in (c32, c16, c8))
        self.merged16, self.merged8 = CrossStage(2 * c8, c8), CrossStage(2 * c8, c8)
        self.heads = nn.ModuleList(Head(c8, classes) for _ in STRIDES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What an application gets.

        Args:
            images: ``[N, 3, H, W]`` float, RGB from 0 to 1.

        Returns:
            Boxes ``[N, cells, 4]`` (left, top, right, bottom in pixels) and scores ``[N, cells, classes]`` from 0 to 1,
            the cells of stride 8 first. Which of them overlap is for the application to settle.
        """
        boxes, logits = self.predict(images)
        return boxes, logits.sigmoid()

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with logits in the place of scores, which training needs."""
        at8 = self.stride8(images)
        at16 = self.stride16(at8)
        top = self.lateral32(self.stride32(at16))
        middle = self.merged16(torch.cat((_resized(top, at16), self.lateral16(at16)), dim=1))
        bottom = self.merged8(torch.cat((_resized(middle, at8), self.lateral8(at8)), dim=1))
        boxes, logits = [], []
        for stride, head, x in zip(STRIDES, self.heads, (bottom, middle, top), strict=True):
            distances, found = head(x)
            centres = cell_centres(x.shape[2], x.shape[3], stride).to(x.device)
            left_top, right_bottom = distances.split(2, dim=-1)
            boxes.append(torch.cat((centres - left_top * stride, centres + right_bottom * stride), dim=-1))
            logits.append(found)
        return torch.cat(boxes, dim=1), torch.cat(logits, dim=1)


def cell_centres(height: int, width: int, stride: int) -> Tensor:
    """Centres of the cells of a map, ``[height * width, 2]`` float, x and y in pixels, in reading order."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack((x, y), dim=-1).reshape(-1, 2) + 0.5) * stride


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="nearest")
