"""Pictures with their classes written in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from edgeformer.inference import Prediction
from edgeformer.inference.annotation import annotated, save_annotated

GREY = np.full((240, 320, 3), 128, np.uint8)
CAT = Prediction(3, "cat", 0.75)


def test_the_text_is_in_the_upper_left_corner() -> None:
    image = np.asarray(annotated(GREY, [CAT, Prediction(1, "dog", 0.25)]))
    assert image.shape == GREY.shape
    changed = (image != GREY).any(2)
    assert changed[:40, :60].any()
    assert not changed[120:].any()
    assert not changed[:, 200:].any()
    assert image.max() > 240  # the letters


def test_more_classes_take_more_room() -> None:
    one, five = ((np.asarray(annotated(GREY, [CAT] * count)) != GREY).any(2).sum() for count in (1, 5))
    assert five > 3 * one


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 500, 3), (500, 2, 3)])
def test_pictures_of_any_shape(shape: tuple[int, int, int]) -> None:
    assert annotated(np.zeros(shape, np.uint8), [CAT]).size == (shape[1], shape[0])


@pytest.mark.parametrize("label", ["猫", "\N{OWL}", "a\nb\x1b[31m", "x" * 1000, ""])
def test_labels_of_any_text(label: str) -> None:
    assert annotated(GREY, [Prediction(0, label, 1.0)]).size == (320, 240)


def test_without_a_font_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    bitmap = ImageFont.load_default_imagefont() if hasattr(ImageFont, "load_default_imagefont") else None
    if bitmap is None:
        pytest.skip("this Pillow has no bitmap font to ask for")

    def load_default(size: float | None = None) -> object:
        if size is not None:
            raise OSError("no FreeType")
        return bitmap

    monkeypatch.setattr(ImageFont, "load_default", load_default)
    image = annotated(GREY, [Prediction(0, "猫 cat", 1.0)])
    assert (np.asarray(image) != GREY).any()


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG")])
def test_files_have_the_format_of_their_name(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / name
    save_annotated(path, GREY, [CAT])
    with Image.open(path) as image:
        assert image.format == kind
        assert image.size == (320, 240)
    assert os.listdir(path.parent) == [name]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_text("before")

    def save(self: Image.Image, where: Path, *_: object, **__: object) -> None:
        where.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="no space left"):
        save_annotated(path, GREY, [CAT])
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.png"]
