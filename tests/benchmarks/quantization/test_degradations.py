"""Degraded images: seeded, worse with strength, and as bad as a network can just take."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.quantization.degradations import AIM, degrade, weakened

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3)).astype(np.uint8)


SMOOTH = np.full((8, 24, 24, 3), 160, np.uint8)


def loss(images: NDArray[np.uint8]) -> float:
    return float(np.abs(images.astype(float) - 160).mean())


def test_a_seed_decides() -> None:
    assert np.array_equal(degrade(IMAGES, 0.5), degrade(IMAGES, 0.5))
    assert not np.array_equal(degrade(IMAGES, 0.5), degrade(IMAGES, 0.5, seed=8))


def test_an_image_does_not_hang_on_those_behind_it() -> None:
    assert np.array_equal(degrade(IMAGES, 0.5)[:4], degrade(IMAGES[:4], 0.5))


def test_more_strength_is_worse() -> None:
    losses = [loss(degrade(SMOOTH, strength)) for strength in (0, 0.2, 0.5, 1)]
    assert losses == sorted(losses)
    assert losses[0] < 2
    assert losses[-1] > 20


def test_black_stays_dark_and_images_differ() -> None:
    black = np.zeros((12, 24, 24, 3), np.uint8)
    spread = degrade(black, 1.0).astype(float).mean(axis=(1, 2, 3))
    assert spread.max() < 40
    assert len(np.unique(spread)) == 12


def test_bisection_finds_the_strength() -> None:
    asked: list[float] = []

    def top1(images: NDArray[np.uint8]) -> float:
        asked.append(100 - loss(images))
        return asked[-1]

    found = weakened(SMOOTH, top1)
    assert found.top1 == pytest.approx(AIM, abs=1)
    assert found.top1 == 100 - loss(found.images)
    assert len(asked) <= 11
    assert np.array_equal(found.images, degrade(SMOOTH, found.strength))


def test_a_network_that_is_hardly_better_is_given_images_that_cost_it_something() -> None:
    found = weakened(SMOOTH, lambda images: 86.0 - loss(images) / 2)
    assert found.top1 == pytest.approx(82, abs=1)
    assert loss(found.images) == pytest.approx(8, abs=2)


@pytest.mark.parametrize("always", [60.0, 99.0])
def test_a_network_that_never_gets_there_is_refused(always: float) -> None:
    with pytest.raises(ValueError, match=f"80 to 90 %: the nearest is {always}"):
        weakened(IMAGES[:2], lambda images: always)
