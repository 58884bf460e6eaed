"""A classification task without flat backgrounds: which of some photographs is a crop from?

The photographs come with the package scikit-image and need no download. Each is cut into cells; crops for training,
calibration and test lie in cells of their own, so that no pixel is in two of the three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.errors import EnvironmentFault

__all__ = ["NAMES", "Crops", "Parts", "cut", "load_photographs"]

NAMES = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "rocket",
)
"""Functions of `skimage.data`, each one class."""

CELLS = 4
"""Cells along each side of a photograph."""
_SEED = 20261128
# Of the 16 cells of a photograph: one for calibration, five for the test, the rest for training.
_CALIBRATION_CELLS = 1
_TEST_CELLS = 5
# Crops of each class. 17 x 12 classes is a little over the 200 that digits are calibrated with; the rest is cut off.
_TRAINING_CROPS = 330
_CALIBRATION_CROPS = 17
_TEST_CROPS = 42
_SMALLEST = 0.6


@dataclass(frozen=True)
class Crops:
    """Crops ``[N, size, size, 3]`` uint8 and the class of each, ``[N]`` int64. The classes take turns."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """Crops from three sets of cells that share no pixel."""

    train: Crops
    calibration: Crops
    test: Crops


def load_photographs(size: int) -> Parts:
    """The photographs that scikit-image ships, cut.

    Args:
        size: height and width of the crops.

    Raises:
        EnvironmentFault: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", "the photographs come with the package scikit-image: pip install 'edgeformer[photographs]'"
        ) from error
    return cut([_colour(getattr(data, name)()) for name in NAMES], size)


def _colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey photographs get three equal channels."""
    return image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def cut(photographs: list[NDArray[np.uint8]], size: int) -> Parts:
    """Random crops of random size from cells of each photograph, the same at each call.

    Args:
        photographs: ``[h, w, 3]``, of any size.
        size: height and width that crops are resized to.
    """
    generator = np.random.default_rng(_SEED)
    of_training, of_calibration, of_test = [], [], []
    for photograph in photographs:
        cells = generator.permutation(CELLS * CELLS)
        calibration, test, train = np.split(cells, [_CALIBRATION_CELLS, _CALIBRATION_CELLS + _TEST_CELLS])
        of_training.append(_crops(photograph, train, _TRAINING_CROPS, size, generator))
        of_calibration.append(_crops(photograph, calibration, _CALIBRATION_CROPS, size, generator))
        of_test.append(_crops(photograph, test, _TEST_CROPS, size, generator))
    return Parts(_mixed(of_training), _mixed(of_calibration), _mixed(of_test))


def _crops(
    photograph: NDArray[np.uint8], cells: NDArray[np.int64], count: int, size: int, generator: np.random.Generator
) -> NDArray[np.uint8]:
    height, width = (side // CELLS for side in photograph.shape[:2])
    found = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        row, column = divmod(int(cells[number % len(cells)]), CELLS)
        side = int(min(height, width) * generator.uniform(_SMALLEST, 1))
        top = row * height + int(generator.integers(height - side + 1))
        left = column * width + int(generator.integers(width - side + 1))
        crop = Image.fromarray(photograph[top : top + side, left : left + side])
        found[number] = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
    return found


def _mixed(classes: list[NDArray[np.uint8]]) -> Crops:
    count = len(classes[0])
    images = np.stack(classes, axis=1).reshape(-1, *classes[0].shape[1:])
    return Crops(images, np.tile(np.arange(len(classes), dtype=np.int64), count))
