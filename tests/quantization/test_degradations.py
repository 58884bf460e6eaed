"""Degraded versions of calibration images."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer.quantization.degradations import degraded


def pictures(count: int = 6, size: tuple[int, int] = (33, 20)) -> np.ndarray:
    random = np.random.default_rng(3)
    ramp = np.linspace(-2, 3, size[0] * size[1], dtype=np.float32).reshape(size)
    return np.stack([np.stack([ramp * random.uniform(0.5, 1) for _ in range(3)]) for _ in range(count)])


@pytest.mark.parametrize("size", [(33, 20), (1, 1), (2, 7), (64, 64)])
def test_a_version_has_the_shape_and_stays_in_the_range_of_its_image(size: tuple[int, int]) -> None:
    images = pictures(size=size)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = -3, 4
    made = degraded(images, seed=1)
    assert made.shape == images.shape
    assert made.dtype == np.float32
    assert (made >= images.min(axis=(1, 2, 3), keepdims=True) - 1e-5).all()
    assert (made <= images.max(axis=(1, 2, 3), keepdims=True) + 1e-5).all()


def test_the_same_seed_gives_the_same_versions_and_another_one_others() -> None:
    images = pictures()
    assert (degraded(images, seed=1) == degraded(images, seed=1)).all()
    assert (degraded(images, seed=1) != degraded(images, seed=2)).any(axis=(1, 2, 3)).all()
    # An image's version does not depend on how many follow.
    assert (degraded(images[:2], seed=1) == degraded(images, seed=1)[:2]).all()


def test_every_version_differs_from_its_image_and_is_still_like_it() -> None:
    images = pictures(count=20)
    made = degraded(images, seed=0)
    for image, version in zip(images, made, strict=True):
        assert 0.5 < np.corrcoef(image.ravel(), version.ravel())[0, 1] < 0.9999
        assert version.std() < image.std() * 1.05


def test_pixels_stay_pixels() -> None:
    images = np.rint(pictures() * 40 + 100)
    made = degraded(images)
    assert (made == np.rint(made)).all()
    assert (made != images).any(axis=(1, 2, 3)).all()
    assert 0 <= made.min() <= made.max() <= 255


def test_the_given_images_are_left_alone() -> None:
    images = pictures()
    before = images.copy()
    degraded(images)
    assert (images == before).all()


@pytest.mark.parametrize("value", [0.0, 2.5, np.nan, np.inf])
def test_an_image_of_one_value_or_none_that_is_finite_stays_as_it_is(value: float) -> None:
    images = np.full((2, 3, 5, 4), value, dtype=np.float32)
    np.testing.assert_array_equal(degraded(images), images)


@pytest.mark.parametrize("shape", [(35,), (5, 7), (1, 9, 9), (4, 6, 5), (2, 3, 4, 5)])
def test_what_is_no_picture_gets_noise_alone(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(0).standard_normal((12, *shape)).astype(np.float32)
    made = degraded(arrays)
    assert made.shape == arrays.shape
    for array, version in zip(arrays, made, strict=True):
        assert 0.2 < np.corrcoef(array.ravel(), version.ravel())[0, 1] < 0.9999


def test_no_images_give_none() -> None:
    assert degraded(np.empty((0, 3, 4, 4), np.float32)).shape == (0, 3, 4, 4)
