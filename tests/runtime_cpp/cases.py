"""Random images and settings, with what ``Preprocessing``, and so Pillow, makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeformer.data import Preprocessing

LEVELS = Preprocessing(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Its mean and standard deviation: results are levels over 255."""


@dataclass(frozen=True)
class Case:
    """An image as it is stored, and what it becomes.

    Attributes:
        pixels: ``[H, W, 3]`` uint8 RGB.
        orientation: EXIF's, 1 to 8.
        preprocessing: scales to 0..1, no more.
    """

    pixels: npt.NDArray[np.uint8]
    orientation: int
    preprocessing: Preprocessing

    def image(self) -> Image.Image:
        """The image with its EXIF data, as it is read from a file."""
        image = Image.fromarray(self.pixels)
        exif = Image.Exif()
        exif[0x0112] = self.orientation
        image.getexif().load(exif.tobytes())
        return image

    def expected(self) -> npt.NDArray[np.float32]:
        """By the definition."""
        return self.preprocessing(self.image())


def random_cases(count: int, seed: int, largest: int = 600) -> Iterator[Case]:
    """Sizes from 1 to ``largest`` of any shape, results up to 96 x 96, every mode, crop and orientation.

    Half of the images are noise, the rest has edges between 0 and 255, where bicubic overshoots.
    """
    generator = np.random.default_rng(seed)
    for index in range(count):
        limit = int(np.exp(generator.uniform(0, np.log(largest)))) + 1
        height, width = (int(size) for size in generator.integers(1, limit + 1, 2))
        levels = generator.integers(0, 256, (height, width, 3), np.uint8)
        fraction = (1.0, 0.875, float(generator.uniform(0.05, 1.0)))[index % 3]
        preprocessing = Preprocessing(
            int(generator.integers(1, 97)),
            int(generator.integers(1, 97)),
            LEVELS.mean,
            LEVELS.std,
            str(generator.choice(("bilinear", "bicubic"))),
            fraction,
        )
        pixels = levels if index % 2 else (levels > 127).astype(np.uint8) * np.uint8(255)
        yield Case(pixels, int(generator.integers(1, 9)), preprocessing)


def apart(result: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> int:
    """The largest difference, in levels."""
    return round(float(np.abs(result - expected).max()) * 255)
