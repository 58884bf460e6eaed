"""Which files a user means by paths of images, folders, videos and cameras, and where annotated ones go."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeformer.data.image_layout import images_below, is_image, left_out_text, parts_of, usable
from edgeformer.errors import InputError

__all__ = ["VIDEO_SUFFIXES", "Camera", "PictureFile", "Sources", "Video", "annotated_paths", "find_sources"]

_VIDEOS = ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv"
VIDEO_SUFFIXES = frozenset(_VIDEOS.split())
_CAMERA = re.compile(r"camera:([0-9]{1,3})|/dev/video([0-9]{1,3})")
# What Pillow writes in the format that it read; the others become PNG.
_KEPT = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class PictureFile:
    """An image file.

    Attributes:
        path: the file.
        name: its path inside the folder that was given, or its file name.
    """

    path: Path
    name: Path


@dataclass(frozen=True)
class Video:
    """A video file."""

    path: Path


@dataclass(frozen=True)
class Camera:
    """A camera by its number: that of ``/dev/videoN``."""

    number: int


@dataclass(frozen=True)
class Sources:
    """What was asked for.

    Attributes:
        pictures: image files, in the order in which they were given, those of a folder sorted.
        left_out: how many files of folders were left out and why, a line for each folder.
        stream: the video or camera, which stands alone.
    """

    pictures: tuple[PictureFile, ...]
    left_out: tuple[str, ...]
    stream: Video | Camera | None


def find_sources(given: Sequence[str]) -> Sources:
    """Find the images, or the video or camera, that ``given`` names; nothing is read.

    A folder is walked as `edgeformer.data.image_layout` says: ``images/`` beside ``labels/`` is entered alone, of
    splits each is, and images that cannot be read at all are left out.

    Args:
        given: paths of images, folders or a video, or ``camera:0``.

    Raises:
        InputError: a path does not exist, a folder has no images, or a video or camera does not stand alone.
    """
    pictures: list[PictureFile] = []
    left_out: list[str] = []
    streams = [stream for text in given if (stream := _stream(text)) is not None]
    if streams and len(given) > 1:
        raise InputError("EF104", f"a video or a camera is run alone; got {len(given)} inputs: run them one by one")
    if streams:
        return Sources((), (), streams[0])
    for text in given:
        path = Path(text)
        if path.is_dir():
            found, line = _of_folder(path)
            pictures += found
            left_out += [line] if line else []
        elif os.path.lexists(path):
            pictures.append(PictureFile(path, Path(path.name)))
        else:
            raise InputError("EF102", f"{text}: there is no such image, folder or video")
    return Sources(tuple(pictures), tuple(left_out), None)


def _stream(text: str) -> Video | Camera | None:
    if match := _CAMERA.fullmatch(text):
        return Camera(int(match[1] or match[2]))
    path = Path(text)
    return Video(path) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() else None


def _of_folder(folder: Path) -> tuple[list[PictureFile], str]:
    flat = any(is_image(entry) and not entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith("."))
    images = [path for part in ([folder] if flat else parts_of(folder)) for path in images_below(part)]
    found, left_out = usable(images)
    line = f"{folder}: {left_out_text(len(images), left_out)}" if left_out else ""
    if not found:
        raise InputError("EF403", line or f"{folder} holds no images")
    return [PictureFile(path, path.relative_to(folder)) for path in found], line


def annotated_paths(pictures: Sequence[PictureFile], folder: Path) -> list[Path]:
    """Where the annotated picture of each goes; nothing is written.

    JPEG and PNG files keep their names, others get ``.png`` behind theirs.

    Raises:
        InputError: two would be the same file, or one would replace a picture that is read.
    """
    read = {os.path.realpath(picture.path): picture for picture in pictures}
    made: dict[str, PictureFile] = {}
    paths = []
    for picture in pictures:
        name = picture.name if picture.name.suffix.lower() in _KEPT else Path(f"{picture.name}.png")
        path = folder / name
        key = os.path.realpath(path)
        if key in read:
            raise InputError(
                "EF868", f"{path} would replace a picture that is read, {read[key].path}: give another folder as output"
            )
        if key in made:
            raise InputError(
                "EF868",
                f"{made[key].path} and {picture.path} would both become {path}: run them one by one, into different "
                "folders",
            )
        made[key] = picture
        paths.append(path)
    return paths
