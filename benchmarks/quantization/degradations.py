"""Evaluation images as a worse camera gives them, as bad as a network can just take.

NumPy and Pillow alone: what edgeformer itself may do to calibration images is no part of this.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["Degraded", "degrade", "weakened"]

Pixels = NDArray[np.uint8]

SEED = 7
# At strength 1 and where an image draws all of a kind.
_LEAST_CONTRAST = 0.25
_MOST_BLUR = 4.0
_MOST_NOISE = 80.0
_BEST_QUALITY, _WORST_QUALITY = 95, 5
# FP32's accuracy on the degraded images, percent: what is aimed at, how much below that on clean ones it lies at least,
# and what is taken.
AIM = 85.0
LEAST_DROP = 4.0
RANGE = (80.0, 90.0)
_STEPS = 10
_NEAR = 0.5


def degrade(images: Pixels, strength: float, seed: int = SEED) -> Pixels:
    """Blur, lower contrast, noise and JPEG, in the order in which a camera does them; each image has its own mix.

    Args:
        images: ``[N, H, W, 3]`` uint8.
        strength: 0 (JPEG of quality 95 alone) to 1.
        seed: of noise and mixes. With the same one, strength alone decides how bad an image gets.

    Returns:
        As ``images``.
    """
    generator = np.random.default_rng(seed)
    found = np.empty_like(images)
    for number, image in enumerate(images):
        blur, contrast, noise, jpeg = (strength * generator.uniform(0, 1, 4)).tolist()
        # Grey noise, as dim light gives; drawn for each image, so that the next one's is the same without this one.
        grain = generator.standard_normal((*image.shape[:2], 1))
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_MOST_BLUR * blur)), np.float64)
        # Towards black: a dark background stays what it is, as in a picture that is exposed too short.
        dimmed = blurred * (1 - (1 - _LEAST_CONTRAST) * contrast)
        noisy = np.clip(np.rint(dimmed + _MOST_NOISE * noise * grain), 0, 255).astype(np.uint8)
        quality = round(_BEST_QUALITY - (_BEST_QUALITY - _WORST_QUALITY) * jpeg)
        found[number] = _jpeg(noisy, quality)
    return found


def _jpeg(image: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@dataclass(frozen=True)
class Degraded:
    """What a network can just take.

    Attributes:
        images: ``[N, H, W, 3]`` uint8.
        strength: that made them.
        top1: of the network on them, percent.
    """

    images: Pixels
    strength: float
    top1: float


def weakened(images: Pixels, top1: Callable[[Pixels], float]) -> Degraded:
    """Images as bad as they may be for an accuracy within `RANGE`, by bisection towards `AIM`.

    A network that is hardly better than that on clean images is given images on which it is `LEAST_DROP` worse.

    Args:
        images: ``[N, H, W, 3]`` uint8.
        top1: the network's accuracy on such images, percent.

    Raises:
        ValueError: no strength gets there: the network is not that good on clean images, or too good on the worst.
    """
    low, high = 0.0, 1.0
    aim = min(AIM, max(top1(images) - LEAST_DROP, RANGE[0]))
    best: Degraded | None = None
    for _ in range(_STEPS):
        strength = (low + high) / 2
        tried = degrade(images, strength)
        found = Degraded(tried, strength, top1(tried))
        if best is None or abs(found.top1 - aim) < abs(best.top1 - aim):
            best = found
        if abs(found.top1 - aim) <= _NEAR:
            break
        low, high = (strength, high) if found.top1 > aim else (low, strength)
    assert best is not None
    if not RANGE[0] <= best.top1 <= RANGE[1]:
        raise ValueError(
            f"no strength of degradation brings FP32 to {RANGE[0]:.0f} to {RANGE[1]:.0f} %: the nearest is "
            f"{best.top1:.1f} % at {best.strength:.3f}"
        )
    return best
