"""Which files of a folder are images, and which of its sub-folders are classes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from PIL import features

from edgeformer.errors import InputError
from edgeformer.text import printable, shortened

__all__ = [
    "IMAGE_SUFFIXES",
    "by_turns",
    "holds_classes",
    "holds_images",
    "images_below",
    "is_class",
    "is_image",
    "left_out_text",
    "parts_of",
    "usable",
]

_ALWAYS = ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
# Pillow reads AVIF from version 11.3 on, where it was built with it.
IMAGE_SUFFIXES = tuple(sorted([*_ALWAYS.split(), *([".avif"] if features.check("avif") else [])]))
# Images, too, that nothing here reads: they are counted, not passed over in silence.
_OTHERS = (
    ".arw .avif .cr2 .cr3 .dng .eps .exr .hdr .heic .heics .heif .hif .ico .j2k .jp2 .jxl .jxr .nef .orf .pcx .psd "
    ".raf .raw .rw2 .svg .tga"
)
_UNREAD_SUFFIXES = frozenset(_OTHERS.split()) - frozenset(IMAGE_SUFFIXES)
# Folders of data sets for detection and segmentation, and of splits: none of them is a class.
_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages"})
_BESIDE = frozenset({"labels", "annotations", "imagesets", "masks", "segmentationclass", "segmentationobject"})
_SPLIT = re.compile(r"(train|val|valid|validation|test|testing|training|eval|evaluation|dev|minival)(-?dev)?_?(\d{4})?")
_LISTED = 8


def is_class(folder: Path) -> bool:
    """Whether a folder's name may be that of a class."""
    name = folder.name.casefold()
    return name not in _IMAGES and name not in _BESIDE and _SPLIT.fullmatch(name) is None


def parts_of(folder: Path) -> list[Path]:
    """The folders below ``folder`` that hold its images, where its sub-folders are no classes.

    ``images/`` beside ``labels/`` is entered alone; of splits each is. ``folder`` itself where it has neither.
    """
    below = _folders(folder)
    inner = [entry for entry in below if entry.name.casefold() in _IMAGES]
    inner = inner or [entry for entry in below if _SPLIT.fullmatch(entry.name.casefold())]
    return [part for entry in inner for part in parts_of(entry)] or [folder]


def holds_classes(folder: Path) -> bool:
    """Whether a folder has sub-folders that may be classes, with files that may be images."""
    return any(is_class(entry) and holds_images(entry) for entry in _folders(folder))


def holds_images(folder: Path) -> bool:
    """Whether there are files at any depth that may be images."""
    return any(map(is_image, images_below(folder)))


def images_below(folder: Path) -> list[Path]:
    """Files at any depth that are images by their names, sorted; hidden ones and what is below hidden ones left out.

    Folders that are not entered, since they cannot be read or are links (which may lead in a circle), are among them:
    `usable` says so of each.
    """
    found: list[Path] = []
    closed: list[Path] = []

    def cannot_be_read(error: OSError) -> None:
        closed.append(Path(os.fsdecode(error.filename)))

    for parent, folders, names in os.walk(folder, onerror=cannot_be_read):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        closed += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted([*closed, *(path for path in found if is_image(path))])


def is_image(path: Path) -> bool:
    """Whether a name is that of an image, readable here or not."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or suffix in _UNREAD_SUFFIXES


def by_turns(groups: Iterable[Sequence[Path]]) -> list[tuple[Path, int]]:
    """The first of every group, then the second of every group, ...: each with the number of its group."""
    return [(path, group) for turn in zip_longest(*groups) for group, path in enumerate(turn) if path is not None]


def usable(images: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The images that can be read, and what keeps the others from it, a few words each."""
    found, left_out = [], []
    for path in images:
        reason = _unusable(path)
        if reason is None:
            found.append(path)
        else:
            left_out.append(f"{printable(shortened(path.name, 60))} ({reason})")
    return found, left_out


def left_out_text(count: int, left_out: Sequence[str]) -> str:
    """How many of ``count`` files were left out, and which."""
    more = f", and {len(left_out) - _LISTED} more" if len(left_out) > _LISTED else ""
    return f"{len(left_out)} of {count} files left out: {', '.join(left_out[:_LISTED])}{more}"


def _unusable(path: Path) -> str | None:
    if path.is_dir():
        return "a link to a folder, which is not followed" if path.is_symlink() else "a folder that cannot be read"
    if path.suffix.lower() in _UNREAD_SUFFIXES:
        return f"{path.suffix.lower()} is not read: save it as PNG or JPEG"
    try:
        status = path.stat()
    except OSError as error:
        return "a link to nothing" if path.is_symlink() else error.strerror or "it cannot be read"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    if status.st_size == 0:
        return "empty"
    return None if os.access(path, os.R_OK) else "permission denied"


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError("EF102", f"cannot read {folder}: {error.strerror or error}") from error
