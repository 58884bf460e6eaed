"""Many pictures, videos and cameras through a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeformer.inference import Model, load
from edgeformer.inference.classification import FrameFigures, classify_files, classify_frames
from edgeformer.inference.picture_files import PictureFile
from tests.inference.conftest import CLASSES, classifier, make_bundle
from tests.raising import raises

FRAMES = np.random.default_rng(8).integers(0, 256, (12, 9, 7, 3), np.uint8)


def pictures(folder: Path, count: int = 3) -> list[PictureFile]:
    files = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.fromarray(FRAMES[index]).save(path)
        files.append(PictureFile(path, Path(path.name)))
    return files


def test_files_are_classified_in_their_order(small_model: Model, tmp_path: Path) -> None:
    files = pictures(tmp_path)
    results = list(classify_files(small_model, files, top=2))
    assert [one.path for one in results] == [one.path for one in files]
    for index, result in enumerate(results):
        assert list(result.predictions) == small_model.predict(FRAMES[index], top=2)
        assert (result.annotated, result.error) == (None, None)


def test_a_file_that_cannot_be_read_is_told_and_passed_over(small_model: Model, tmp_path: Path) -> None:
    files = pictures(tmp_path)
    files[1].path.write_text("no picture")
    outputs = [tmp_path / "out" / file.name for file in files]
    first, second, third = classify_files(small_model, files, annotated=outputs)
    assert second.error is not None
    assert second.error.code == "EF405"
    assert (second.predictions, second.annotated) == ((), None)
    assert len(first.predictions) == len(third.predictions) == len(CLASSES)
    assert third.annotated == outputs[2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]


def test_what_is_wrong_with_the_model_ends_it(small_model: Model, tmp_path: Path) -> None:
    files = pictures(tmp_path)
    with raises("EF101", "top=9"):
        next(classify_files(small_model, files, top=9))
    with load(make_bundle(tmp_path / "b", classifier(), task="features", labels=None)) as model, raises("EF766"):
        next(classify_files(model, files))


def test_every_frame_of_a_video(small_model: Model) -> None:
    figures = FrameFigures()
    results = list(classify_frames(small_model, FRAMES, figures, top=1))
    assert [one.index for one in results] == list(range(12))
    assert [list(one.predictions) for one in results] == [small_model.predict(frame, top=1) for frame in FRAMES]
    assert (figures.frames, figures.dropped, figures.depth) == (12, 0, 3)
    assert figures.frames_per_second == pytest.approx(12 / figures.seconds)


def test_a_limit_ends_an_endless_source(small_model: Model) -> None:
    closed = []

    def endless() -> Iterator[np.ndarray]:
        try:
            while True:
                yield FRAMES[0]
        finally:
            closed.append(True)

    figures = FrameFigures()
    results = list(classify_frames(small_model, endless(), figures, newest_only=True, limit=5))
    assert len(results) == figures.frames == 5
    assert figures.depth == 2
    assert closed == [True]
    indices = [one.index for one in results]
    assert indices == sorted(set(indices))
    assert indices[-1] == 4 + figures.dropped


def test_figures_before_the_first_frame() -> None:
    assert FrameFigures().frames_per_second == 0


def test_they_are_kept_where_it_ends_early(small_model: Model) -> None:
    figures = FrameFigures()
    frames = classify_frames(small_model, FRAMES, figures)
    next(frames)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert figures.frames == 2
    assert figures.seconds > 0
