"""Folders of images: one sub-folder for each class, or without labels."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeformer.data.class_names import Classes, indices_of_folders
from edgeformer.data.image_layout import (
    IMAGE_SUFFIXES,
    by_turns,
    holds_classes,
    holds_images,
    images_below,
    is_class,
    is_image,
    left_out_text,
    parts_of,
    usable,
)
from edgeformer.data.preprocessing import MAX_PIXELS, Preprocessing
from edgeformer.data.samples import Sample, Samples
from edgeformer.errors import InputError
from edgeformer.text import printable

__all__ = ["IMAGE_SUFFIXES", "ImageFolder", "class_folder_names", "image_content", "prepared_image", "with_image"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# No image of MAX_PIXELS pixels takes more, whatever its format.
_MOST_BYTES = 1 << 30


def image_content(path: Path) -> bytes:
    """A file's bytes: what is hashed is what is decoded.

    Raises:
        InputError: it cannot be read, or is too large to be an image that is taken.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError("EF405", f"cannot read the image {path}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise InputError("EF406", f"cannot use the image {path}: it has more than {_MOST_BYTES} bytes; make it smaller")
    return content


def prepared_image(content: bytes, path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Decode and prepare one image.

    Args:
        content: the file's bytes.
        path: the file, for messages.
        preprocessing: how it is prepared.

    Returns:
        ``[3, height, width]`` float32.

    Raises:
        InputError: not an image, damaged, or larger than ``MAX_PIXELS`` pixels; the message names the file.
    """
    return with_image(content, path, preprocessing)


def with_image(content: bytes, path: Path, use: Callable[[Image.Image], T]) -> T:
    """Open one image and do something with it, which decodes it.

    Args:
        content: the file's bytes.
        path: the file, for messages.
        use: what is done.

    Returns:
        What ``use`` returns.

    Raises:
        InputError: not an image, damaged, or larger than ``MAX_PIXELS`` pixels; the message names the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from the limit that is an error below on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(
                        "EF406", f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels; make it smaller"
                    )
                return use(image)
    except InputError as error:
        raise InputError(error.code, f"cannot use the image {path}: {error}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, above twice that many pixels
        raise InputError("EF406", f"cannot use the image {path}: {error}; make it smaller") from error
    except UnidentifiedImageError as error:  # whose own words name an object in memory
        raise InputError("EF405", f"cannot read the image {path}: it is no image of a known format") from error
    except Exception as error:  # decoders raise whatever a damaged file makes them trip over
        raise InputError("EF405", f"cannot read the image {path}: {str(error) or type(error).__name__}") from error


def class_folder_names(folder: Path, classes: Classes) -> tuple[str, ...] | None:
    """The names of all classes of a model in the order of their indices, where the sub-folders of a folder tell them.

    Args:
        folder: may be anything, also no folder.
        classes: of the model, their number known.

    Returns:
        None where the sub-folders are not its classes, or not all of them.
    """
    below = [] if not folder.is_dir() else sorted(entry for entry in folder.iterdir() if entry.is_dir())
    below = [entry for entry in below if not entry.name.startswith(".")]
    if len(below) != classes.count or not all(is_class(entry) and images_below(entry) for entry in below):
        return None
    names = [entry.name for entry in below]
    try:
        indices = indices_of_folders(folder, names, classes)
    except InputError:  # numbers beyond the classes, or one twice
        return None
    return tuple(name for _, name in sorted(zip(indices, names, strict=True)))


class ImageFolder(Samples):
    """The images of a folder.

    With sub-folders, each one is a class, and `indices_of_folders` says which; images may lie deeper inside. The
    classes take turns (the first image of every class, then the second of every class, ...), so that the first
    ``limit`` images cover all classes. Without sub-folders images have no labels and come sorted by name; so they do
    where the sub-folders are those of a data set for detection (``images/``, ``labels/``) or of splits (``train/``,
    ``val/``), which are no classes. Hidden files, and files whose suffix is not an image's, are left out; images that
    cannot be read at all (links to nothing, empty files, formats without a reader) as well, with a warning.
    """

    def __init__(
        self,
        folder: Path,
        preprocessing: Preprocessing,
        limit: int | None,
        *,
        labels: bool = True,
        classes: Classes | None = None,
    ) -> None:
        """Find the images; none is read.

        Args:
            folder: that holds them.
            preprocessing: how they are prepared.
            limit: use no more than so many.
            labels: whether labels are wanted: without, sub-folders of any kind will do, and there are none.
            classes: of the model that the labels are for.
        """
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        flat = [entry for entry in entries if is_image(entry) and not entry.is_dir()]
        below = [entry for entry in entries if entry.is_dir()]
        if flat:
            # Folders without images beside them, such as labels/, do no harm.
            below = [entry for entry in below if holds_images(entry)]
        if flat and below:
            raise InputError(
                "EF404",
                f"{folder} holds images ({flat[0].name}, ...) and sub-folders ({below[0].name}, ...): "
                "put every image into its class's sub-folder, or give a folder of images only",
            )
        self._folder = folder
        self._preprocessing = preprocessing
        self._left_out: list[str] = []
        self._found = 0
        named = classes is not None and classes.names is not None and {e.name for e in below} <= {*classes.names}
        if not below:
            files: list[tuple[Path, int | None]] = [(path, None) for path in self._usable(flat)]
        elif named or all(map(is_class, below)):
            files = self._by_class(below, labels, classes)
        else:
            files = self._of_layout(below, labels)
        if self._left_out:
            log.warning("%s", printable(f"{folder}: {left_out_text(self._found, self._left_out)}"))
        if not files:
            why = f": {left_out_text(self._found, self._left_out)}" if self._left_out else ""
            raise InputError("EF403", f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}){why}")
        self._files = files[:limit]
        labelled = files[0][1] is not None
        names = tuple(entry.name for entry in below) if labelled else None
        if names is not None and classes is not None and classes.names is not None:
            names = classes.names
        elif names is not None and {label for _, label in files} != set(range(len(names))):
            names = None
        elif names is not None:
            order = {label: path.relative_to(folder).parts[0] for path, label in files if label is not None}
            names = tuple(order[index] for index in range(len(names)))
        super().__init__(str(folder), preprocessing, class_names=names, labelled=labelled, count=len(self._files))

    def _usable(self, images: list[Path]) -> list[Path]:
        found, left_out = usable(images)
        self._found += len(images)
        self._left_out += left_out
        return found

    def _by_class(self, folders: list[Path], labels: bool, classes: Classes | None) -> list[tuple[Path, int | None]]:
        groups = [self._usable(images_below(entry)) for entry in folders]
        empty = [entry.name for entry, images in zip(folders, groups, strict=True) if not images]
        if empty and labels:
            why = f" ({left_out_text(self._found, self._left_out)})" if self._left_out else ""
            raise InputError(
                "EF403",
                f"{self._folder}: no images ({', '.join(IMAGE_SUFFIXES)}) in the class sub-folder "
                f"{', '.join(empty[:10])}{', ...' if len(empty) > 10 else ''}{why}. Every sub-folder is a class: "
                "remove the empty ones or fill them",
            )
        if not labels:
            return [(path, None) for path, _ in by_turns(groups)]
        indices = indices_of_folders(self._folder, [entry.name for entry in folders], classes)
        return [(path, indices[group]) for path, group in by_turns(groups)]

    def _of_layout(self, below: list[Path], labels: bool) -> list[tuple[Path, int | None]]:
        mixed = [entry for entry in below if is_class(entry) and holds_images(entry)]
        parts = below if mixed else parts_of(self._folder)
        inside = [part for part in parts if holds_classes(part)]
        if labels and (mixed or inside):
            none = ", ".join(f"{entry.name}/" for entry in below if not is_class(entry))
            way = f"give {' or '.join(map(str, inside[:4]))}" if inside and not mixed else "move what is no class away"
            raise InputError("EF462", f"{self._folder} holds {none}, which is no class: {way}")
        return [(path, None) for path, _ in by_turns([self._usable(images_below(part)) for part in parts])]

    def samples(self) -> Iterator[Sample]:
        """Yield every image, read and prepared when its turn comes."""
        for index, (path, label) in enumerate(self._files):
            yield self._read(index, path), label

    def _read(self, index: int, path: Path) -> NDArray[np.float32]:
        content = image_content(path)
        self._check_same(index, hashlib.sha256(content).digest(), str(path))
        return prepared_image(content, path, self._preprocessing)

    def content(self) -> Iterator[bytes]:
        """Yield each file's path inside the folder, its label and the hash of its bytes."""
        for index, (path, label) in enumerate(self._files):
            digest = hashlib.sha256(image_content(path)).digest()
            self._check_same(index, digest, str(path))
            yield os.fsencode(f"{path.relative_to(self._folder).as_posix()}\0{label}\0{digest.hex()}")
