"""Many pictures, or the frames of a video or camera, through a classifier."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeformer.errors import InputError
from edgeformer.inference.annotation import save_annotated
from edgeformer.inference.frames import FrameReader
from edgeformer.inference.model import Model, Prediction
from edgeformer.inference.picture_files import PictureFile
from edgeformer.inference.pictures import pixels_of
from edgeformer.inference.video import Frame

__all__ = ["ClassifiedFrame", "ClassifiedPicture", "FrameFigures", "classify_files", "classify_frames"]

# Of pixels_of: what is wrong with one file, and not with the model or the others.
_UNREADABLE = ("EF405", "EF406", "EF407")


@dataclass(frozen=True)
class ClassifiedPicture:
    """A picture and what came of it.

    Attributes:
        path: its file.
        predictions: its classes, best first; empty where it could not be read.
        annotated: the annotated picture, where one was asked for.
        error: why it could not be read; None where it could.
    """

    path: Path
    predictions: tuple[Prediction, ...]
    annotated: Path | None
    error: InputError | None


def classify_files(
    model: Model, pictures: Sequence[PictureFile], top: int | None = None, annotated: Sequence[Path] | None = None
) -> Iterator[ClassifiedPicture]:
    """Classify image files one by one. One that cannot be read does not end it.

    Args:
        model: a classifier.
        pictures: the files.
        top: as `Model.predict` takes it.
        annotated: where the annotated picture of each is written; None writes none.

    Raises:
        InputError: the model takes no pictures, is no classifier, or fails.
        OSError: an annotated picture cannot be written.
    """
    for index, picture in enumerate(pictures):
        try:
            pixels = pixels_of(picture.path)
        except InputError as error:
            if error.code not in _UNREADABLE:
                raise
            yield ClassifiedPicture(picture.path, (), None, error)
            continue
        predictions = tuple(model.predict(pixels, top))
        path = None if annotated is None else annotated[index]
        if path is not None:
            save_annotated(path, pixels, predictions)
        yield ClassifiedPicture(picture.path, predictions, path, None)


@dataclass(frozen=True)
class ClassifiedFrame:
    """A frame and its classes.

    Attributes:
        index: counted from 0, those that were dropped among them.
        predictions: its classes, best first.
    """

    index: int
    predictions: tuple[Prediction, ...]


@dataclass
class FrameFigures:
    """How fast frames went through; filled while they do.

    Attributes:
        frames: that were classified.
        dropped: that were not, since a newer one came.
        depth: frames that are under way at once, at most: read ahead, and in the model.
        seconds: from the first frame's arrival to the last one's result.
    """

    frames: int = 0
    dropped: int = 0
    depth: int = 0
    seconds: float = 0.0

    @property
    def frames_per_second(self) -> float:
        """Classified frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0


def classify_frames(
    model: Model,
    frames: Iterable[Frame],
    figures: FrameFigures,
    *,
    top: int | None = None,
    newest_only: bool = False,
    limit: int | None = None,
) -> Iterator[ClassifiedFrame]:
    """Classify frames while the next ones are read.

    Args:
        model: a classifier.
        frames: what is read, in a thread of its own.
        figures: is kept up to date, also where this ends early.
        top: as `Model.predict` takes it.
        newest_only: for cameras: take the newest frame, and drop those that came while the model ran.
        limit: frames to classify; None for all.

    Raises:
        InputError: the frames cannot be read, or as `Model.predict`.
    """
    with FrameReader(frames, newest_only=newest_only) as reader:
        figures.depth = reader.depth
        began = None
        for frame in reader:
            began = began or time.perf_counter()
            predictions = tuple(model.predict(frame, top))
            figures.frames += 1
            figures.dropped = reader.dropped
            figures.seconds = time.perf_counter() - began
            yield ClassifiedFrame(figures.frames + figures.dropped - 1, predictions)
            if figures.frames == limit:
                return
