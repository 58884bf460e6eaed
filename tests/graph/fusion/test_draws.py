"""Random inputs must make routing decisive and attention neither uniform nor one-hot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeformer.graph.fusion.draws import draw_block_input
from edgeformer.graph.fusion.wiring import Wiring
from edgeformer.ops.bi_level_routing_attention import Attributes

CASES = [
    (Attributes(2, 7, 4, 64, 64**-0.5), (2, 14, 28, 32), 192),
    (Attributes(1, 16, 8, 32, 32**-0.5), (1, 16, 32, 32), 96),
    (Attributes(4, 4, 15, 16, 3.0), (3, 4, 4, 8), 40),
    (Attributes(1, 1, 1, 4, 0.01), (1, 3, 5, 4), 12),
]


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("attributes", "shape", "channels"), CASES)
def test_draws(
    attributes: Attributes, shape: tuple[int, int, int, int], channels: int, linear: bool, bias: bool
) -> None:
    image = shape if linear else (*shape[:3], channels)
    draw = draw_block_input(
        np.random.default_rng(5), attributes, image, Wiring.plain(channels, linear=linear, bias=bias)
    )

    assert draw is not None
    assert draw.image.shape == image
    assert draw.qkv.shape == (*shape[:3], channels)
    assert draw.image.dtype == draw.qkv.dtype == np.float32
    expected = draw.image if draw.weight is None else draw.image @ draw.weight
    np.testing.assert_allclose(draw.qkv, expected if draw.bias is None else expected + draw.bias, rtol=1e-5, atol=1e-5)
    assert (draw.weight is None) == (not linear)
    assert (draw.bias is None) == (not bias)

    n, h, w, _ = shape
    side, qk, heads = attributes.regions, attributes.qk_dim, attributes.num_heads
    tiles = draw.qkv.astype(np.float64).reshape(n, side, h // side, side, w // side, channels)
    means = tiles.mean(axis=(2, 4)).reshape(n, side * side, channels)
    logits = means[..., :qk] @ means[..., qk : 2 * qk].transpose(0, 2, 1)
    if attributes.topk < side * side:
        ordered = np.sort(logits, axis=-1)[..., ::-1]
        gap = (ordered[..., attributes.topk - 1] - ordered[..., attributes.topk]).min() / np.abs(logits).max()
        # What the draw promises, less the rounding of the image to FP32.
        assert gap > 0.9 * min(1e-4, 6e-3 / side**2)
    query, key = (draw.qkv[..., part : part + qk].reshape(-1, heads, qk // heads) for part in (0, qk))
    spread = (attributes.scale * np.einsum("qhd,khd->hqk", query, key)).std()
    assert 0.3 < spread < 6


def test_no_decisive_routing_is_admitted() -> None:
    """Where all regions are alike, all logits are equal, however often the draw is repeated."""

    class Zeros:
        def standard_normal(self, size: tuple[int, ...]) -> np.ndarray:
            return np.zeros(size)

    rng: Any = Zeros()
    wiring = Wiring.plain(12, linear=True, bias=True)
    assert draw_block_input(rng, Attributes(1, 2, 2, 4, 1.0), (1, 4, 4, 4), wiring) is None


def test_the_seed_decides() -> None:
    attributes, shape, channels = CASES[0]
    wiring = Wiring.plain(channels, linear=True, bias=True)
    one, same, other = (draw_block_input(np.random.default_rng(seed), attributes, shape, wiring) for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    np.testing.assert_array_equal(one.image, same.image)
    assert np.abs(one.image - other.image).max() > 1
