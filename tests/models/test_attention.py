"""Attention against slow, obvious float64 references: the op's own, and loops written here."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeformer.models.attention import (
    BiLevelRoutingAttention,
    BiLevelRoutingAttentionNCHW,
    FullAttention,
    FullAttentionNCHW,
    bi_level_routing_attention,
    gather_regions,
    image_from_regions,
    regions_from_image,
)
from edgeformer.ops.bi_level_routing_attention import Attributes
from edgeformer.ops.bi_level_routing_attention import reference as op_reference

# FP32 against float64 on values of order 1; a wrongly routed region is wrong by 1e-1.
TOLERANCE = 2e-5

Array = NDArray[np.float64]


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def _conv(x: Array, weight: Array, bias: Array) -> Array:
    """Depthwise convolution of ``[H, W, C]`` with zero padding, as loops over the kernel."""
    side = weight.shape[-1]
    half = side // 2
    padded = np.pad(x, ((half, half), (half, half), (0, 0)))
    out = np.zeros_like(x) + bias
    for i, j in itertools.product(range(side), repeat=2):
        out += padded[i : i + x.shape[0], j : j + x.shape[1]] * weight[:, 0, i, j]
    return out


def _parameters(module: torch.nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in module.state_dict().items()}


def _randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.mark.parametrize(
    ("n", "height", "width", "heads", "qk_dim", "dim", "regions", "topk", "scale"),
    [
        (2, 8, 12, 2, 8, 16, 4, 3, 8**-0.5),
        (1, 7, 14, 1, 4, 4, 7, 16, 0.7),
        (3, 3, 3, 3, 12, 6, 3, 9, 12**-0.5),
        (1, 15, 5, 4, 16, 16, 5, 1, 0.25),
        (2, 4, 6, 2, 4, 2, 1, 1, 1.0),
    ],
)
def test_the_op(
    n: int, height: int, width: int, heads: int, qk_dim: int, dim: int, regions: int, topk: int, scale: float
) -> None:
    generator = np.random.default_rng(height * 100 + width)
    qkv = generator.standard_normal((n, height, width, 2 * qk_dim + dim)).astype(np.float32)
    ours = bi_level_routing_attention(
        torch.from_numpy(qkv), num_heads=heads, regions=regions, topk=topk, qk_dim=qk_dim, scale=scale
    )
    expected = op_reference(qkv, Attributes(heads, regions, topk, qk_dim, scale))
    assert ours.shape == (n, height, width, dim)
    assert np.abs(ours.numpy() - expected).max() < TOLERANCE


def test_regions_are_cut_in_reading_order_and_put_back() -> None:
    image = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    regions = regions_from_image(image, 2, 3)
    assert regions.shape == (2, 6, 4, 3)
    assert torch.equal(regions[1, 4], image[1, 2:4, 2:4].reshape(4, 3))
    assert torch.equal(image_from_regions(regions, 2, 3, 2), image)


def test_gather_takes_whole_regions() -> None:
    tokens = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    indices = torch.tensor([[[2, 0], [1, 1], [0, 2]], [[0, 1], [2, 1], [1, 0]]])
    gathered = gather_regions(tokens, indices)
    assert gathered.shape == (2, 3, 4, 4)
    for image, region in itertools.product(range(2), range(3)):
        expected = torch.cat([tokens[image, chosen] for chosen in indices[image, region]])
        assert torch.equal(gathered[image, region], expected)


def test_routing_is_not_learned_through() -> None:
    """Keys of regions that were not chosen get no gradient; chosen ones do."""
    qkv = torch.zeros(1, 2, 2, 3, requires_grad=True)
    with torch.no_grad():
        qkv[..., 0] = 1.0
        qkv[0, :, :, 1] = torch.tensor([[3.0, 2.0], [0.5, -1.0]])
        qkv[0, :, :, 2] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    bi_level_routing_attention(qkv, num_heads=1, regions=2, topk=2, qk_dim=1, scale=1.0).sum().backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    assert qkv.grad is not None
    keys, values = qkv.grad[0, :, :, 1], qkv.grad[0, :, :, 2]
    assert (keys[0] != 0).all()
    assert (keys[1] == 0).all()
    assert (values[0] > 0).all()
    assert (values[1] == 0).all()


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7), (1, 4)])
def test_auto_pad_is_padding_by_hand(height: int, width: int) -> None:
    options: dict[str, Any] = {"num_heads": 2, "regions": 3, "topk": 4, "qk_dim": 8, "scale": None, "lepe_kernel": 5}
    padding = BiLevelRoutingAttention(8, **options, output_projection=True, auto_pad=True)
    plain = BiLevelRoutingAttention(8, **options, output_projection=True, auto_pad=False)
    _randomise(padding, seed=1)
    plain.load_state_dict(padding.state_dict())
    x = torch.randn(2, height, width, 8, generator=torch.Generator().manual_seed(2))
    padded = torch.zeros(2, math.ceil(height / 3) * 3, math.ceil(width / 3) * 3, 8)
    padded[:, :height, :width] = x
    with torch.no_grad():
        assert torch.equal(padding(x), plain(padded)[:, :height, :width])


def test_projections_and_lepe() -> None:
    """The whole module is ``wo(BRA(qkv(x)) + lepe(v))``, with the scale that is given."""
    module = BiLevelRoutingAttention(
        6,
        num_heads=2,
        regions=2,
        topk=2,
        qk_dim=4,
        scale=0.9,
        lepe_kernel=3,
        output_projection=True,
        auto_pad=False,
    )
    _randomise(module, seed=3)
    p = _parameters(module)
    x = np.random.default_rng(4).standard_normal((1, 4, 6, 6)).astype(np.float32)
    qkv = x.astype(np.float64) @ p["qkv.qkv.weight"].T + p["qkv.qkv.bias"]
    attended = op_reference(qkv, Attributes(2, 2, 2, 4, 0.9))[0]
    lepe = _conv(qkv[0, ..., 8:], p["lepe.weight"], p["lepe.bias"])
    expected = (attended + lepe) @ p["wo.weight"].T + p["wo.bias"]
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()[0]
    assert np.abs(ours - expected).max() < TOLERANCE


def test_without_lepe_and_output_projection() -> None:
    module = BiLevelRoutingAttention(
        4,
        num_heads=1,
        regions=2,
        topk=1,
        qk_dim=4,
        scale=None,
        lepe_kernel=0,
        output_projection=False,
        auto_pad=False,
    )
    assert set(module.state_dict()) == {"qkv.qkv.weight", "qkv.qkv.bias"}
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = op_reference(module.qkv(x).numpy(), Attributes(1, 2, 1, 4, 0.5))
        assert np.abs(module(x).numpy() - expected).max() < TOLERANCE


def _nchw_by_loops(x: Array, p: dict[str, Array], heads: int, regions: int, topk: int) -> Array:
    """One image ``[dim, H, W]`` through the NCHW attention, region by region."""
    dim, height, width = x.shape
    rh, rw = height // regions, width // regions
    rows, columns = math.ceil(height / rh), math.ceil(width / rw)
    qkv = np.einsum("oc,chw->hwo", p["qkv_linear.weight"][:, :, 0, 0], x) + p["qkv_linear.bias"]
    blocks = [(slice(i * rh, (i + 1) * rh), slice(j * rw, (j + 1) * rw)) for i in range(rows) for j in range(columns)]
    # Means over real tokens only; tokens of the regions with zeros where the image has ended.
    means = np.stack([qkv[block][..., : 2 * dim].mean(axis=(0, 1)) for block in blocks])
    padded = np.zeros((rows * rh, columns * rw, 3 * dim))
    padded[:height, :width] = qkv
    out = np.zeros((rows * rh, columns * rw, dim))
    for index, block in enumerate(blocks):
        chosen = np.argsort(-(means[:, dim:] @ means[index, :dim]), kind="stable")[:topk]
        keys = np.concatenate([padded[blocks[other]].reshape(-1, 3 * dim) for other in chosen])
        queries = padded[block].reshape(-1, 3 * dim)
        result = np.empty((rh * rw, dim))
        for head in np.split(np.arange(dim), heads):
            weights = _softmax(queries[:, head] @ keys[:, dim + head].T * dim**-0.5)
            result[:, head] = weights @ keys[:, 2 * dim + head]
        out[block] = result.reshape(rh, rw, dim)
    out = out[:height, :width] + _conv(qkv[..., 2 * dim :], p["lepe.weight"], p["lepe.bias"])
    projected: Array = np.einsum("oc,hwc->ohw", p["output_linear.weight"][:, :, 0, 0], out)
    return projected + p["output_linear.bias"][:, None, None]


@pytest.mark.parametrize(
    ("height", "width", "regions", "topk"), [(6, 9, 3, 2), (7, 9, 3, 4), (8, 11, 3, 9), (5, 5, 3, 5), (9, 16, 4, 1)]
)
def test_nchw_attention_pads_after_the_projection(height: int, width: int, regions: int, topk: int) -> None:
    module = BiLevelRoutingAttentionNCHW(8, num_heads=2, regions=regions, topk=topk, lepe_kernel=3)
    _randomise(module, seed=height * width)
    x = np.random.default_rng(height).standard_normal((2, 8, height, width)).astype(np.float32)
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()
    p = _parameters(module)
    for image, result in zip(x.astype(np.float64), ours, strict=True):
        assert np.abs(result - _nchw_by_loops(image, p, 2, regions, topk)).max() < TOLERANCE


def test_nchw_attention_without_lepe() -> None:
    module = BiLevelRoutingAttentionNCHW(4, num_heads=1, regions=2, topk=2, lepe_kernel=0)
    assert module.lepe is None
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        qkv = module.qkv_linear(x).permute(0, 2, 3, 1).numpy()
        expected = torch.from_numpy(op_reference(qkv, Attributes(1, 2, 2, 4, 0.5))).float().permute(0, 3, 1, 2)
        assert torch.allclose(module(x), module.output_linear(expected), atol=TOLERANCE)


@pytest.mark.parametrize("lepe", [0, 5])
def test_full_attention(lepe: int) -> None:
    """8 heads, no bias on qkv, LePE on the input."""
    module = FullAttention(16, lepe_kernel=lepe)
    _randomise(module, seed=7)
    p = _parameters(module)
    x = np.random.default_rng(8).standard_normal((3, 5, 16))
    qkv = (x @ p["qkv.weight"].T).reshape(15, 48)
    attended: Array = np.empty((15, 16))
    for head in np.split(np.arange(16), 8):
        weights = _softmax(qkv[:, head] @ qkv[:, 16 + head].T * 2**-0.5)
        attended[:, head] = weights @ qkv[:, 32 + head]
    attended = attended.reshape(3, 5, 16)
    if lepe:
        attended += _conv(x, p["lepe.weight"], p["lepe.bias"])
    expected = attended @ p["proj.weight"].T + p["proj.bias"]
    with torch.no_grad():
        ours = module(torch.from_numpy(x[None]).float()).numpy()[0]
    assert np.abs(ours - expected).max() < TOLERANCE


def test_full_attention_nchw_has_lepe_on_the_values() -> None:
    module = FullAttentionNCHW(16)
    _randomise(module, seed=9)
    p = _parameters(module)
    x = np.random.default_rng(10).standard_normal((16, 3, 5))
    qkv = np.einsum("oc,chw->hwo", p["qkv.weight"][:, :, 0, 0], x)
    tokens = qkv.reshape(15, 48)
    attended: Array = np.empty((15, 16))
    for head in np.split(np.arange(16), 8):
        weights = _softmax(tokens[:, head] @ tokens[:, 16 + head].T * 2**-0.5)
        attended[:, head] = weights @ tokens[:, 32 + head]
    attended = attended.reshape(3, 5, 16) + _conv(qkv[..., 32:], p["lepe.weight"], p["lepe.bias"])
    expected = np.einsum("oc,hwc->ohw", p["proj.weight"][:, :, 0, 0], attended) + p["proj.bias"][:, None, None]
    with torch.no_grad():
        ours = module(torch.from_numpy(x[None]).float()).numpy()[0]
    assert np.abs(ours - expected).max() < TOLERANCE
