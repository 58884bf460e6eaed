from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeformer.errors import InputError


class Tiny(nn.Module):
    """Conv, BatchNorm, GELU, LayerNorm, a global attention and a head; odd sizes and a strict rule on them."""

    def __init__(self, dense: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.GELU())
        self.norm = nn.LayerNorm(12, eps=1e-6)
        self.qkv = nn.Linear(12, 36)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 7)
        self.dense = dense

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise InputError("EF204", f"height and width have to be even, got {x.shape[2]}x{x.shape[3]}")
        first = self.stem(x)
        y = first.permute(0, 2, 3, 1)
        n, h, w, c = y.shape
        q, k, v = self.qkv(self.norm(y)).reshape(n, h * w, 3 * c).split(c, -1)
        y = y + ((q @ k.transpose(1, 2)).softmax(-1) @ v).reshape(n, h, w, c)
        y = self.drop(y)
        if self.dense:
            return [first, y.permute(0, 3, 1, 2)]
        logits: torch.Tensor = self.head(y.mean((1, 2)))
        return logits


def make_tiny(dense: bool = False) -> Tiny:
    torch.manual_seed(7)
    model = Tiny(dense)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture
def tiny_dense() -> Tiny:
    return make_tiny(dense=True)
