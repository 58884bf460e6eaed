"""Pictures of every kind become the pixels that training saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeformer.data import Preprocessing
from edgeformer.data.preprocessing import MAX_PIXELS
from edgeformer.inference.model import Model
from edgeformer.inference.pictures import describe, pixels_of
from tests.raising import raises

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (9, 7, 3), np.uint8)


def test_an_array_is_taken_as_it_is() -> None:
    assert pixels_of(PIXELS) is PIXELS
    turned = PIXELS[::-1]
    assert np.array_equal(pixels_of(turned), turned)
    assert pixels_of(turned).flags.c_contiguous


def test_paths_and_pillow_images(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    Image.fromarray(PIXELS).save(path)
    for given in (path, str(path), Image.fromarray(PIXELS)):
        assert np.array_equal(pixels_of(given), PIXELS)


def save(path: Path, kind: str) -> None:
    image = Image.fromarray(PIXELS)
    if kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    elif kind == "palette":
        image.quantize(16).save(path, transparency=0)
    elif kind == "16 bits":
        Image.fromarray(RNG.integers(0, 65536, (9, 7), np.uint16)).save(path)
    else:
        image.convert(kind).save(path)


@pytest.mark.parametrize("kind", ["exif", "palette", "16 bits", "L", "LA", "RGBA", "1"])
def test_files_of_every_mode_are_read_as_training_reads_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    save(path, kind)
    found = pixels_of(path)
    if kind == "exif":
        assert np.array_equal(found, np.rot90(PIXELS, -1))
    plain = Preprocessing(found.shape[0], found.shape[1], crop_fraction=1.0).with_normalization("none")
    with Image.open(path) as image:
        assert np.array_equal(plain(image), found.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "picture",
    [
        PIXELS.astype(np.float32),
        PIXELS[:, :, 0],
        PIXELS[None],
        PIXELS[:0],
        np.zeros((3, 4, 4), np.uint8),
        7,
        None,
        b"bytes.png",
    ],
)
def test_what_is_no_picture(picture: Any) -> None:
    with raises("EF863", "a picture is"):
        pixels_of(picture)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    for given in (path, tmp_path, f"{path}\0"):
        with raises("EF405", tmp_path):
            pixels_of(given)
    path.write_text("no picture")
    with raises("EF405", path, "no image of a known format"):
        pixels_of(path)
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with raises("EF405", path):
        pixels_of(path)
    floats = tmp_path / "floats.tiff"
    Image.fromarray(np.zeros((2, 2), np.float32)).save(floats)
    with raises("EF407", floats, "floating-point"):
        pixels_of(floats)
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(path)
    with raises("EF406", path, MAX_PIXELS):
        pixels_of(path)


def test_pixels_are_described_by_their_size_and_place() -> None:
    assert describe(PIXELS) == {"width": 7, "height": 9, "data": PIXELS.ctypes.data}


def test_models_use_them(small_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    assert small_model.predict(path) == small_model.predict(PIXELS)
