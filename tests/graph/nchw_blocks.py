"""Bi-level routing attention on ``[N, C, H, W]``, as people paste it into convolutional detectors.

Regions are given by their size, ``H // regions`` by ``W // regions`` tokens: where that does not divide the image there
are more regions than asked for, and the last ones are partly padding. Means are taken by average pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DIFFERENT_NCHW", "NchwBlock"]

# Ways to write a piece that make another function.
DIFFERENT_NCHW = (
    *("max_pool", "wide_pool", "shifted_pool", "padded_pool", "padded_pool_valid"),
    *("ascending", "swapped_routing", "transposed_weight", "wrong_paste", "scaled_value", "head_scale"),
)


class NchwBlock(nn.Module):
    """One block; ``way`` is how it is written, ``"plain"`` or one of `DIFFERENT_NCHW` or of those in the tests."""

    def __init__(
        self,
        dim: int = 16,
        heads: int = 2,
        regions: int = 4,
        topk: int = 3,
        lepe: int | None = 3,
        way: str = "plain",
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.regions, self.topk, self.way = dim, heads, regions, topk, way
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.query, self.key, self.value = (nn.Conv2d(dim, dim, 1, bias=way != "apart_no_bias") for _ in range(3))
        self.mixing = nn.Parameter(torch.randn(dim, dim) / dim**0.5)
        self.lepe = None if lepe is None else nn.Conv2d(dim, dim, lepe, padding=lepe // 2, groups=dim)
        self.out = nn.Conv2d(dim, dim, 1)

    def pooled(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Means over regions, ``[N, C, rows, columns]``."""
        if self.way == "max_pool":
            return functional.max_pool2d(x, size, ceil_mode=True)
        if self.way == "wide_pool":
            return functional.avg_pool2d(functional.pad(x, (1, 0, 1, 0)), (size[0] + 1, size[1] + 1), size)
        if self.way == "shifted_pool":
            return functional.avg_pool2d(x.roll(1, 3), size)
        if self.way.startswith("padded_pool"):
            valid = self.way.endswith("valid")
            return functional.avg_pool2d(
                x, (size[0] + 2, size[1] + 2), stride=size, padding=1, count_include_pad=not valid
            )
        if self.way == "floor":
            return functional.avg_pool2d(x, size)
        return functional.avg_pool2d(x, size, ceil_mode=True, count_include_pad=self.way == "count_pad")

    def cut(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """``[N, C, H, W]`` to ``[N, heads, regions, tokens, head width]``."""
        n, c, height, width = x.shape
        h, w = size
        grid = x.reshape(n, self.heads, c // self.heads, height // h, h, width // w, w)
        return torch.einsum("ncdyhxw->ncyxhwd", grid).flatten(2, 3).flatten(3, 4)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each ``[N, dim, H, W]``."""
        if self.way.startswith("apart"):
            return self.query(x), self.key(x), self.value(x)
        q, k, v = self.qkv(x).chunk(3, 1)
        if self.way == "transposed_weight":
            k = torch.einsum("nchw,cd->ndhw", k, self.mixing)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        n, (height, width) = x.shape[0], map(int, x.shape[2:])  # the old exporter needs pooling sizes as numbers
        size = (height // self.regions, width // self.regions)
        q, k, v = self.project(x)
        query, key = self.pooled(q, size), self.pooled(k, size)
        rows, columns = -(-height // size[0]), -(-width // size[1])
        logits = query.permute(0, 2, 3, 1).flatten(1, 2) @ key.flatten(2)
        if self.way == "swapped_routing":
            logits = logits.transpose(1, 2)
        index = logits.topk(self.topk, dim=-1, largest=self.way != "ascending")[1]
        margin = (0, columns * size[1] - width, 0, rows * size[0] - height)
        parts = [functional.pad(y, margin) if any(margin) else y for y in (q, k, v)]
        q, k, v_cut = (self.cut(y, size) for y in parts)
        regions, tokens, head = q.shape[2:]
        where = index[:, None, :, :, None, None].expand(-1, self.heads, -1, -1, tokens, head)
        k, v_cut = (
            y[:, :, None].expand(-1, -1, regions, -1, -1, -1).gather(3, where).flatten(3, 4) for y in (k, v_cut)
        )
        scale = (head if self.way == "head_scale" else self.dim) ** -0.5
        attended = ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v_cut
        grid = attended.reshape(n, self.heads, rows, columns, size[0], size[1], head)
        if self.way == "wrong_paste":
            grid = grid.transpose(2, 3)
        y = torch.einsum("ncyxhwd->ncdyhxw", grid).reshape(n, self.dim, rows * size[0], columns * size[1])
        if any(margin):
            y = y[:, :, :height, :width]
        if self.way == "scaled_value":
            y = y * 1.01 + v * 0.01
        mixed: Tensor = self.out(y if self.lepe is None else y + self.lepe(v))
        return x + mixed
