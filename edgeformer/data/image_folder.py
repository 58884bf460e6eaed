"""Folders of images: one sub-folder for each class, or flat and without labels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.artifacts import sha256_of_file
from edgeformer.data.preprocessing import MAX_PIXELS, Preprocessing
from edgeformer.data.samples import Sample, Samples
from edgeformer.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "ImageFolder", "read_image"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read and prepare one image file.

    Returns:
        ``[3, height, width]`` float32.

    Raises:
        InputError: not an image, damaged, or larger than ``MAX_PIXELS`` pixels; the message names the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from the limit that is an error below on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(
                        "EF406", f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels; make it smaller"
                    )
                return preprocessing(image)
    except InputError as error:
        raise InputError(error.code, f"cannot use the image {path}: {error}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, above twice that many pixels
        raise InputError("EF406", f"cannot use the image {path}: {error}; make it smaller") from error
    except Exception as error:  # decoders raise whatever a damaged file makes them trip over
        raise InputError("EF405", f"cannot read the image {path}: {error or type(error).__name__}") from error


class ImageFolder(Samples):
    """The images of a folder.

    With sub-folders, each one is a class and its index is its place among the sorted names (torchvision's convention);
    images may lie deeper inside. The classes take turns (the first image of every class, then the second of every
    class, ...), so that the first ``limit`` images cover all classes. Without sub-folders images have no labels and
    come sorted by name. Hidden files, and files whose suffix is not an image's, are left out.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing, limit: int | None) -> None:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        flat = [entry for entry in entries if _is_image(entry)]
        classes = [entry for entry in entries if entry.is_dir()]
        if flat and classes:
            raise InputError(
                "EF404",
                f"{folder} holds images ({flat[0].name}, ...) and sub-folders ({classes[0].name}, ...): "
                "put every image into its class's sub-folder, or give a folder of images only",
            )
        files: list[tuple[Path, int | None]]
        if classes:
            by_class = [_images_below(entry) for entry in classes]
            empty = [entry.name for entry, images in zip(classes, by_class, strict=True) if not images]
            if empty:
                raise InputError(
                    "EF403",
                    f"{folder}: no images ({', '.join(IMAGE_SUFFIXES)}) in the class sub-folder "
                    f"{', '.join(empty[:10])}{', ...' if len(empty) > 10 else ''}. Every sub-folder is a class: "
                    "remove the empty ones or fill them",
                )
            turns = zip_longest(*by_class)
            files = [(path, label) for turn in turns for label, path in enumerate(turn) if path is not None]
        else:
            files = [(path, None) for path in flat]
        if not files:
            raise InputError("EF403", f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self._folder = folder
        self._files = files[:limit]
        super().__init__(
            str(folder),
            preprocessing,
            class_names=tuple(entry.name for entry in classes) if classes else None,
            labelled=bool(classes),
            count=len(self._files),
        )

    def samples(self) -> Iterator[Sample]:
        """Yield every image, read and prepared when its turn comes."""
        for path, label in self._files:
            yield read_image(path, self.preprocessing), label

    def content(self) -> Iterator[bytes]:
        """Yield each file's path inside the folder, its label and the hash of its bytes."""
        for path, label in self._files:
            try:
                digest = sha256_of_file(path)
            except OSError as error:
                raise InputError("EF405", f"cannot read the image {path}: {error}") from error
            yield f"{path.relative_to(self._folder).as_posix()}\0{label}\0{digest}".encode()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _images_below(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if _is_image(path))
