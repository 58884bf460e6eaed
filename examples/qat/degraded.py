"""Digits as a worse camera gives them: blur, low contrast, noise and JPEG, a mix of its own for each image."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from examples.train_nano.digits import Digits

__all__ = ["STRENGTH", "degraded"]

# At strength 1, and where an image draws all of a kind; for images of 28 x 28.
_BLUR = 1.6  # pixels, standard deviation
_DIMMED = 0.75  # share of the brightness that goes
_NOISE = 90.0  # grey levels, standard deviation
_BEST_QUALITY, _WORST_QUALITY = 95, 5

STRENGTH = 0.75
"""At which a network that knows clean digits alone still gets 80 to 90 % of them."""


def degraded(digits: Digits, *, strength: float = STRENGTH, seed: int = 0) -> Digits:
    """Degraded versions of images.

    Args:
        digits: the images, and their labels, which stay.
        strength: 0 (JPEG of quality 95 alone) to 1.
        seed: of noise and mixes.
    """
    random = np.random.default_rng(seed)
    images = np.empty_like(digits.images)
    for number, image in enumerate(digits.images):
        blur, dimmed, noise, jpeg = (strength * random.uniform(size=4)).tolist()
        soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_BLUR * blur)), np.float64)
        grain = _NOISE * noise * random.standard_normal(image.shape)
        pixels = np.clip(np.rint(soft * (1 - _DIMMED * dimmed) + grain), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        quality = round(_BEST_QUALITY - (_BEST_QUALITY - _WORST_QUALITY) * jpeg)
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        images[number] = np.asarray(Image.open(file))
    return Digits(images, digits.labels)
