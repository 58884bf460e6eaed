from __future__ import annotations

import math

import numpy as np
import pytest

from edgeformer.verify.blocks.noise import Noise, gap_of_picks
from edgeformer.verify.gates import BLOCK_SLICE


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_fp32_is_judged_by_the_largest_difference() -> None:
    want = np.array([[1.0, -4.0, 2.0]], np.float32)
    noise = Noise()
    assert not noise.any
    noise.add(want, want + np.array([[0.0, 0.5, 0.0]], np.float32))
    noise.add(want, want)
    assert noise.any
    assert (noise.metric("fp32"), noise.figure("fp32")) == ("max_abs_relative", 0.125)


def test_noise_that_is_expected_is_one() -> None:
    want, error = random(4, 16, 32), 1e-2 * random(4, 16, 32, seed=1)
    noise = Noise()
    noise.add(want, want + error, want - error)
    assert noise.metric("fp16") == "noise_ratio"
    # A little below: the rounding of the result itself is expected beside it.
    assert noise.figure("fp16") == pytest.approx(1.0, abs=0.05)
    assert noise.figure("fp16") < 1.0


def test_one_channel_shows() -> None:
    want, error = random(4, 64, 32), 1e-3 * random(4, 64, 32, seed=1)
    have = want + error
    have[..., 5] += 0.02 * random(4, 64, seed=2)
    noise = Noise()
    noise.add(want, have, want - error)
    channel = (1e-3**2 + 0.02**2) / 1e-3**2
    assert noise.figure("fp16") == pytest.approx(channel, rel=0.25)


def test_a_channel_of_few_values_is_left_to_chance() -> None:
    want = random(1, BLOCK_SLICE // 2, 4)
    have = want.copy()
    have[0, 3, 1] += 1e-2
    noise = Noise()
    noise.add(want, have, want + np.float32(1e-2) * random(1, BLOCK_SLICE // 2, 4, seed=1))
    assert noise.figure("fp16") < 0.1


def test_masks_are_infinite_in_both() -> None:
    want = np.array([[1.0, -np.inf]], np.float32)
    noise = Noise()
    noise.add(want, want, want)
    assert noise.figure("fp32") == noise.figure("fp16") == 0.0
    noise.add(want, np.array([[np.nan, -np.inf]], np.float32), want)
    assert math.isinf(noise.figure("fp32"))
    assert math.isinf(noise.figure("fp16"))


def test_other_shapes_are_kept_to_be_told() -> None:
    noise = Noise()
    noise.add(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
    assert noise.shapes == ((2, 3), (2, 4))
    assert not noise.any


def test_how_far_apart_picks_lie() -> None:
    logits = np.array([[0.5, 0.49, 0.1, 0.0], [3.0, 2.0, 1.0, 0.0]], np.float32)
    picked = np.array([[0, 2], [0, 1]])
    same = np.array([[2, 0], [1, 0]])
    assert gap_of_picks(logits, picked, same) == (0.0, 2, 2)
    gap, equal, rows = gap_of_picks(logits, picked, np.array([[0, 3], [0, 1]]))
    assert gap == pytest.approx(0.1)
    assert (equal, rows) == (1, 2)
    assert gap_of_picks(logits, np.array([[0, 1], [0, 1]]), np.array([[0, 0], [0, 1]]))[0] == math.inf
