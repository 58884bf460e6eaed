"""The scale from the size of the logits."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer.graph.fusion.geometry import RejectedError, measured_scale
from edgeformer.ops.bi_level_routing_attention import Attributes, reference_routing


def logits(qkv: np.ndarray, attributes: Attributes, scale: float) -> np.ndarray:
    """All attention logits, region by region, plainly."""
    n, h, w, c = qkv.shape
    side, qk, heads = attributes.regions, attributes.qk_dim, attributes.num_heads
    tiles = qkv.reshape(n, side, h // side, side, w // side, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, side**2, -1, c)
    routing = reference_routing(qkv, attributes)
    found = []
    for image in range(n):
        for region in range(side**2):
            query = tiles[image, region, :, :qk].reshape(-1, heads, qk // heads)
            key = tiles[image, routing[image, region], :, qk : 2 * qk].reshape(-1, heads, qk // heads)
            found.append(scale * np.einsum("qhd,khd->hqk", query, key))
    return np.stack(found).astype(np.float32)


@pytest.mark.parametrize("scale", [0.25, 8**-0.5, 12**-0.5, 0.0625, 3.7, 1e-3])
def test_the_factor_is_found_whatever_the_layout(scale: float) -> None:
    attributes = Attributes(num_heads=2, regions=3, topk=4, qk_dim=16, scale=1.0)
    qkv = np.random.default_rng(0).standard_normal((2, 6, 9, 56))
    seen = logits(qkv, attributes, scale)

    assert measured_scale(seen, qkv, attributes) == pytest.approx(scale, rel=2e-7)
    shuffled = np.random.default_rng(1).permutation(seen.ravel()).reshape(4, -1)
    assert measured_scale(shuffled, qkv, attributes) == pytest.approx(scale, rel=2e-7)


def test_a_usual_scale_is_exact() -> None:
    attributes = Attributes(num_heads=2, regions=3, topk=4, qk_dim=24, scale=1.0)
    qkv = np.random.default_rng(0).standard_normal((1, 6, 6, 72))
    noisy = logits(qkv, attributes, 24**-0.5 * (1 + 3e-7))
    assert measured_scale(noisy, qkv, attributes) == float(np.float32(24**-0.5))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_logits_of_no_size_have_no_scale(value: float) -> None:
    attributes = Attributes(num_heads=2, regions=3, topk=4, qk_dim=16, scale=1.0)
    qkv = np.random.default_rng(0).standard_normal((1, 6, 6, 48))
    with pytest.raises(RejectedError, match="times q @ k"):
        measured_scale(np.full((9, 2, 4, 16), value, np.float32), qkv, attributes)
