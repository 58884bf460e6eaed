"""Degraded versions of calibration images: what cameras and codecs do to images of the same kind.

INT8 that is judged on clean images alone is tuned to them: where most of an image is one value, such as a background, a
scale can be lucky with that value's rounding, and loses its luck to the slightest noise. The versions made here say
nothing about which degradations an application will meet; they take the luck away.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["degraded"]

_Images = npt.NDArray[np.float32]
# Contrast is scaled by a factor between these, about the image's mean.
_CONTRAST = (0.5, 1.0)
# Standard deviation of Gaussian noise, as a share of the image's range.
_NOISE = (0.02, 0.16)
# Share of the images that are blurred (binomial, 3 x 3), and of those that go through JPEG at a quality between these.
_BLURRED = 0.5
_COMPRESSED = 0.5
_QUALITY = (30, 75)


def degraded(images: npt.NDArray[Any], seed: int = 0) -> _Images:
    """A version of each image with less contrast and with noise; half of them blurred, half of them through JPEG.

    An image's values stay in the range that they had, whatever the preprocessing made of them, and whole where they
    were: a network that normalizes pixels itself takes no others.

    Args:
        images: float ``[N, 3, H, W]``, preprocessed. Arrays of another shape, which are no pictures, get less contrast
            and noise alone.
        seed: of the random choices. An image's version depends on the seed and its position in ``images``.

    Returns:
        float32, of the same shape.
    """
    made = np.empty(images.shape, dtype=np.float32)
    for number, (image, random) in enumerate(zip(images, _generators(seed), strict=False)):
        made[number] = _degraded(np.asarray(image, dtype=np.float32), random)
    return made


def _generators(seed: int) -> Iterator[np.random.Generator]:
    number = 0
    while True:
        yield np.random.default_rng((seed, number))
        number += 1


def _degraded(image: _Images, random: np.random.Generator) -> _Images:
    low, high = float(image.min()), float(image.max())
    span = high - low
    contrast, noise = random.uniform(*_CONTRAST), random.uniform(*_NOISE)
    blurred, compressed = random.random() < _BLURRED, random.random() < _COMPRESSED
    quality = int(random.integers(_QUALITY[0], _QUALITY[1] + 1))
    grains = random.standard_normal(image.shape).astype(np.float32)
    if not 0 < span < np.inf:
        return image  # one value, or one that is not finite: nothing to scale noise by
    whole = bool((image == np.rint(image)).all())
    mean = image.mean(dtype=np.float64)
    image = (mean + (image - mean) * contrast).astype(np.float32)
    picture = image.ndim == 3 and len(image) == 3
    if blurred and picture:
        image = _blurred(image)
    image = np.clip(image + grains * np.float32(noise * span), low, high)
    image = _compressed(image, low, span, quality) if compressed and picture else image
    return np.rint(image) if whole else image


def _blurred(image: _Images) -> _Images:
    """Each pixel with its neighbours, by (1, 2, 1) / 4 along both axes; the border is repeated."""
    for axis in (1, 2):
        padded = np.pad(image, [(1, 1) if other == axis else (0, 0) for other in range(3)], mode="edge")
        before, after = (np.take(padded, range(start, start + image.shape[axis]), axis=axis) for start in (0, 2))
        image = np.asarray((before + 2 * image + after) / 4, dtype=np.float32)
    return image


def _compressed(image: _Images, low: float, span: float, quality: int) -> _Images:
    """The image through JPEG, its range taken for 0 to 255."""
    pixels = np.rint((image - low) * (255 / span)).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), dtype=np.float32)
    return np.asarray(decoded.transpose(2, 0, 1) * np.float32(span / 255) + np.float32(low), dtype=np.float32)
