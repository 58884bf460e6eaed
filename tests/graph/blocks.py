"""Ways in which people write bi-level routing attention in PyTorch, and things that only look like it.

Every `Block` takes an image ``[N, H, W, C]`` and gives one back; ``parts`` says how each piece is written. `SAME` lists
the ways that compute the same function, the usual one first, and `DIFFERENT` those that do not.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DIFFERENT", "SAME", "Block", "dynamo", "torchscript"]

# Piece -> ways to write it that make no difference to the result.
SAME: dict[str, tuple[str, ...]] = {
    "linear": (
        *("regions", "image", "conv", "matrix", "no_bias"),
        *("separate", "separate_regions", "separate_conv", "separate_matrix", "separate_mixed"),
        *("q_kv", "q_vk", "qk_v", "some_bias", "tied", "key_is_value", "value_first", "by_head"),
    ),
    "gather": ("expand", "index", "flat", "rows", "by_head", "one_hot", "one_hot_product", "one_hot_sum", "scatter"),
    "scale": ("query", "logits", "both", "divide"),
    "attend": ("matmul", "einsum", "sdpa"),
    "routing": ("mean", "sum", "unscaled", "unsorted", "avg_pool"),
    "lepe": ("regions", "image", "none"),
}
# Piece -> ways to write it that are another function, with a word that the fuser's reason must contain.
DIFFERENT: dict[str, dict[str, str]] = {
    "linear": {"position": "channels", "activation": "Sigmoid"},
    "gather": {"pooled": "pooled", "soft": "soft routing", "shifted": "differ", "reversed": "differ"},
    "scale": {"per_head": "Mul", "per_channel": "Mul", "negative": "differ"},
    "attend": {"mask": "Add", "clip": "Clip", "sigmoid": "Sigmoid", "cosine": "ReduceL2", "map": "outside"},
    "routing": {"max": "ReduceMax", "query_only": "differ", "smallest": "smallest", "other_regions": "differ"},
    "layout": {"strided": "differ", "rectangular": "square", "rolled": "outside"},
}


class Block(nn.Module):
    """One attention block, every piece of which can be written in several ways."""

    def __init__(
        self,
        dim: int = 16,
        qk_dim: int = 16,
        heads: int = 2,
        regions: int = 4,
        topk: int = 3,
        size: int = 8,
        **parts: str,
    ) -> None:
        super().__init__()
        self.dim, self.qk, self.heads, self.side, self.topk, self.size = dim, qk_dim, heads, regions, topk, size
        unknown = {f"{k}={v}" for k, v in parts.items() if v not in (*SAME.get(k, ()), *DIFFERENT.get(k, ()))}
        assert not unknown, unknown
        self.parts = {**{piece: ways[0] for piece, ways in SAME.items()}, "layout": "plain", **parts}
        self.rows, self.columns = (2, 3) if parts.get("layout") == "rectangular" else (regions, regions)
        self.qkv = nn.Linear(dim, 2 * qk_dim + dim, bias=self.parts["linear"] != "no_bias")
        self.conv = nn.Conv2d(dim, 2 * qk_dim + dim, 1)
        some = self.parts["linear"] == "some_bias"
        self.q, self.k = nn.Linear(dim, qk_dim, bias=not some), nn.Linear(dim, qk_dim)
        self.v = nn.Linear(dim, dim, bias=not some)
        self.q_conv, self.k_conv, self.v_conv = (nn.Conv2d(dim, width, 1) for width in (qk_dim, qk_dim, dim))
        self.kv, self.qk_both = nn.Linear(dim, qk_dim + dim, bias=False), nn.Linear(dim, 2 * qk_dim)
        self.lepe = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.wo = nn.Linear(dim, dim)
        self.mask = nn.Parameter(torch.randn(heads, 1, 1))
        self.temperature = nn.Parameter(torch.rand(heads, 1, 1) + 0.5)
        self.channel = nn.Parameter(torch.rand(qk_dim // heads) + 0.5)

    def cut(self, x: Tensor) -> Tensor:
        """``[N, H, W, C]`` to ``[N, P, h, w, C]``."""
        n, height, width, c = x.shape
        h, w = height // self.rows, width // self.columns
        if self.parts["layout"] == "strided":
            return x.reshape(n, h, self.rows, w, self.columns, c).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        if self.parts["layout"] == "rolled":
            x = torch.cat([x[:, 1:], x[:, :1]], 1)
        return x.reshape(n, self.rows, h, self.columns, w, c).transpose(2, 3).flatten(1, 2)

    def paste(self, x: Tensor) -> Tensor:
        """``[N, P, h, w, C]`` to ``[N, H, W, C]``."""
        n, _, h, w, c = x.shape
        x = x.reshape(n, self.rows, self.columns, h, w, c)
        if self.parts["layout"] == "strided":
            return x.permute(0, 3, 1, 4, 2, 5).reshape(n, h * self.rows, w * self.columns, c)
        x = x.transpose(2, 3).reshape(n, self.rows * h, self.columns * w, c)
        return torch.cat([x[:, -1:], x[:, :-1]], 1) if self.parts["layout"] == "rolled" else x

    def project(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The image to q, k and v by region and v as an image."""
        how = self.parts["linear"]
        widths = [self.qk, self.qk, self.dim]
        if how in ("image", "conv"):
            y = self.qkv(x) if how == "image" else self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return list(torch.split(self.cut(y), widths, -1)), y[..., 2 * self.qk :]
        if how not in ("regions", "matrix", "no_bias"):
            apart = self.project_apart(x)
            return [self.cut(part) for part in apart], apart[2]
        tiles = self.cut(x)
        if how == "matrix":
            qkv = self.qkv(tiles.reshape(-1, self.dim)).reshape(*tiles.shape[:-1], -1)
        else:
            qkv = self.qkv(tiles)
        return list(torch.split(qkv, widths, -1)), self.paste(qkv[..., 2 * self.qk :])

    def project_apart(self, x: Tensor) -> tuple[Tensor, ...]:
        """The image to images of q, k and v, by one Linear in another order or by several Linears."""
        how, q, k, v = self.parts["linear"], self.q, self.k, self.v
        if how == "value_first":
            return torch.split(self.qkv(x), [self.dim, self.qk, self.qk], -1)[::-1]
        if how == "by_head":
            width = self.qk // self.heads
            heads = self.qkv(x).reshape(*x.shape[:3], self.heads, -1)
            return tuple(y.flatten(3) for y in torch.split(heads, [width, width, self.dim // self.heads], -1))
        if how in ("separate_conv", "separate_mixed"):
            first = x.permute(0, 3, 1, 2)
            key = self.k_conv(first).permute(0, 2, 3, 1)
            if how == "separate_mixed":
                return q(x), key, v(x)
            return self.q_conv(first).permute(0, 2, 3, 1), key, self.v_conv(first).permute(0, 2, 3, 1)
        if how == "separate_matrix":
            rows = x.reshape(-1, self.dim)
            return tuple(linear(rows).reshape(*x.shape[:3], -1) for linear in (q, k, v))
        if how == "separate_regions":
            tiles = self.cut(x)
            return tuple(self.paste(linear(tiles)) for linear in (q, k, v))
        if how == "q_kv":
            return (q(x), *torch.split(self.kv(x), [self.qk, self.dim], -1))
        if how == "q_vk":
            return (q(x), *torch.split(self.kv(x), [self.dim, self.qk], -1)[::-1])
        if how == "qk_v":
            return (*torch.split(self.qk_both(x), self.qk, -1), v(x))
        if how == "tied":
            return q(x), q(x), v(x)
        if how == "key_is_value":
            both = v(x)
            return q(x), both, both
        if how == "position":
            return q(x), k(x + torch.linspace(0, 1, self.dim)), v(x)
        if how == "activation":
            return q(x), functional.silu(k(x)), v(x)
        value, key = v(x), k(x)
        return q(x), key, value

    def route(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and logits ``[N, P, topk]`` of the regions picked; q and k are ``[N, P, h, w, c]``."""
        how = self.parts["routing"]
        scale = self.qk**-0.5
        if how == "max":
            query, key = q.amax((2, 3)), k.amax((2, 3))
        elif how == "sum":
            query, key = q.sum((2, 3)), k.sum((2, 3))
        elif how == "avg_pool":
            pool = (self.size // self.rows, self.size // self.columns)
            query, key = (
                functional.avg_pool2d(self.paste(x).permute(0, 3, 1, 2), pool).flatten(2).transpose(1, 2)
                for x in (q, k)
            )
        else:
            query, key = q.mean((2, 3)), k.mean((2, 3))
        if how == "query_only":
            key = query
        if how == "other_regions":
            key = key.roll(1, 1)
        logits = query @ key.transpose(1, 2)
        if how != "unscaled":
            logits = logits * scale
        values, indices = logits.topk(self.topk, largest=how != "smallest", sorted=how != "unsorted")
        return indices, values

    def pick(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Tokens ``[N, P, t, c]`` to those of the picked regions ``[N, P, topk * t, c]``."""
        how = self.parts["gather"]
        n, p, t, c = x.shape
        if how == "pooled":
            x = x.reshape(n, p, t // 2, 2, c).mean(3)
            t = t // 2
        if how == "shifted":
            x = x.roll(1, 1)
        if how == "reversed":
            indices = p - 1 - indices
        if how == "index":
            return x[torch.arange(n, device=x.device)[:, None, None], indices].flatten(2, 3)
        if how == "flat":
            offset = torch.arange(n, device=x.device)[:, None, None] * p
            picked = x.reshape(n * p, t * c).index_select(0, (indices + offset).reshape(-1))
            return picked.reshape(n, p, self.topk * t, c)
        if how == "rows":
            rows = indices.reshape(n, -1, 1).expand(-1, -1, t * c)
            return x.reshape(n, p, t * c).gather(1, rows).reshape(n, p, -1, c)
        if how == "by_head":
            heads = x.reshape(n, p, t, self.heads, -1).permute(0, 3, 1, 2, 4)
            wide = heads[:, :, None].expand(-1, -1, p, -1, -1, -1)
            where = indices[:, None, :, :, None, None].expand(-1, self.heads, -1, -1, *heads.shape[3:])
            return wide.gather(3, where).permute(0, 2, 3, 4, 1, 5).reshape(n, p, -1, c)
        if how == "scatter":
            hot = torch.zeros(n, p, self.topk, p, device=x.device).scatter(3, indices[..., None], 1.0)
            return torch.einsum("npkr,nrtc->npktc", hot, x).flatten(2, 3)
        if how.startswith("one_hot"):
            hot = functional.one_hot(indices, p).to(x.dtype)
            if how == "one_hot_product":
                return (hot.reshape(n, -1, p) @ x.reshape(n, p, t * c)).reshape(n, p, -1, c)
            if how == "one_hot_sum":
                return (hot[..., None, None] * x[:, None, None]).sum(3).flatten(2, 3)
            return torch.einsum("npkr,nrtc->npktc", hot, x).flatten(2, 3)
        where = indices[..., None, None].expand(-1, -1, -1, t, c)
        picked = x[:, None].expand(-1, p, -1, -1, -1).gather(2, where)
        if how == "soft":
            picked = picked * weights.softmax(-1)[..., None, None]
        return picked.flatten(2, 3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, P, t, c]`` and ``[N, P, keys, c]`` to the output ``[N, P, t, dim]`` and the attention map."""
        how, size = self.parts["attend"], self.qk**-0.5
        n, p, t, _ = q.shape
        q, k, v = (x.reshape(n, p, x.shape[2], self.heads, -1).transpose(2, 3) for x in (q, k, v))
        scaling = self.parts["scale"]
        if scaling == "query":
            q = q * size
        elif scaling == "both":
            q, k = q * math.sqrt(size), k * math.sqrt(size)
        elif scaling == "per_channel":
            q = q * self.channel
        elif scaling == "negative":
            q = q * -size
        if how == "cosine":
            q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
        if how == "sdpa":
            out = functional.scaled_dot_product_attention(
                q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), scale=1.0 if scaling in ("query", "both") else size
            )
            return out.reshape(n, p, self.heads, t, -1).transpose(2, 3).flatten(3), q
        logits = torch.einsum("nphtc,nphkc->nphtk", q, k) if how == "einsum" else q @ k.transpose(-1, -2)
        if scaling == "logits":
            logits = logits * size
        elif scaling == "divide":
            logits = logits / (1 / size)
        elif scaling == "per_head":
            logits = logits * self.temperature
        if how == "mask":
            logits = logits + self.mask * torch.linspace(0, 1, logits.shape[-1])
        if how == "clip":
            logits = logits.clamp(-1e4, 1e4)
        weights = logits.sigmoid().softmax(-1) if how == "sigmoid" else logits.softmax(-1)
        out = torch.einsum("nphtk,nphkc->nphtc", weights, v) if how == "einsum" else weights @ v
        return out.transpose(2, 3).flatten(3), weights

    def forward(self, x: Tensor) -> Any:
        (q, k, v), image = self.project(x)
        n, p, h, w, _ = q.shape
        indices, weights = self.route(q, k)
        q, k, v = q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3)
        if self.parts["gather"] in ("soft", "pooled", "shifted", "reversed", "by_head"):
            k, v = self.pick(k, indices, weights), self.pick(v, indices, weights)
        else:
            k, v = torch.split(self.pick(torch.cat([k, v], -1), indices, weights), [self.qk, self.dim], -1)
        out, attention = self.attend(q, k, v)
        out = self.paste(out.reshape(n, p, h, w, self.dim))
        if self.parts["lepe"] != "none":
            out = out + self.lepe(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out = x + self.wo(out)
        return (out, attention) if self.parts["attend"] == "map" else out


def torchscript(
    model: nn.Module, example: Tensor, *, opset: int = 17, dynamic: dict[int, str] | None = None, fold: bool = True
) -> onnx.ModelProto:
    """Export with PyTorch's old exporter."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (example,),
            buffer,  # type: ignore[arg-type]  # the old exporter takes a file
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            dynamic_axes={"input": dynamic} if dynamic else None,
            do_constant_folding=fold,
        )
    return onnx.load_from_string(buffer.getvalue())


def dynamo(
    model: nn.Module, example: Tensor, *, opset: int = 20, dynamic: dict[int, Any] | None = None
) -> onnx.ModelProto:
    """Export with PyTorch's dynamo exporter; ``dynamic`` maps axes to torch.export dimensions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["input"],
                dynamic_shapes=(dynamic,) if dynamic else None,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto
