"""Images become inputs as torchvision's evaluation transforms make them; odd pixel formats do not slip through."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from edgeformer.data import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edgeformer.data.preprocessing import MAX_PIXELS
from tests.data.conftest import PLAIN, grey_image
from tests.raising import raises


def _noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_values_are_scaled_and_normalized_in_rgb_order() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 255, 51, 0
    result = replace(PLAIN, mean=IMAGENET_MEAN, std=IMAGENET_STD)(Image.fromarray(pixels))
    assert result.shape == (3, 4, 6)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    expected = (np.array([1.0, 0.2, 0.0]) - IMAGENET_MEAN) / IMAGENET_STD
    assert np.allclose(result, expected[:, None, None], atol=1e-6)


def test_crop_fraction_one_resizes_straight_to_the_size() -> None:
    image = _noise(13, 7)
    expected = np.asarray(image.resize((6, 4), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    assert np.allclose(PLAIN(image), expected, atol=1e-7)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (256, 256), (20, 31)])
def test_crop_is_torchvisions(width: int, height: int) -> None:
    """Resize(256) then CenterCrop(224), by torchvision's documented arithmetic."""
    image = _noise(width, height, seed=1)
    short = min(width, height)
    resized = image.resize((int(256 * width / short), int(256 * height / short)), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1) / 255
    ours = Preprocessing(224, 224, PLAIN.mean, PLAIN.std, "bicubic", 0.875)(image)
    assert np.allclose(ours, expected, atol=1e-7)


def test_crop_to_an_oblong_covers_both_sides() -> None:
    """A 100x50 result at 0.5 from a 300x300 image: resized to 200x200, so 50 rows from 75, 100 columns from 50."""
    image = _noise(300, 300, seed=2)
    resized = image.resize((200, 200), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((50, 75, 150, 125))).transpose(2, 0, 1) / 255
    ours = Preprocessing(50, 100, PLAIN.mean, PLAIN.std, "bilinear", 0.5)(image)
    assert np.allclose(ours, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (grey_image(51), (0.2, 0.2, 0.2)),
        (Image.new("LA", (6, 4), (51, 0)), (0.2, 0.2, 0.2)),
        (Image.new("RGBA", (6, 4), (255, 51, 0, 7)), (1.0, 0.2, 0.0)),
        (Image.new("CMYK", (6, 4), (0, 255, 255, 0)), (1.0, 0.0, 0.0)),
        (Image.new("1", (6, 4), 1), (1.0, 1.0, 1.0)),
        (Image.new("RGB", (6, 4), (255, 0, 51)).quantize(4), (1.0, 0.0, 0.2)),
        (Image.fromarray(np.full((4, 6), 51 << 8, np.uint16)), (0.2, 0.2, 0.2)),
        (Image.fromarray(np.full((4, 6), 51 << 8, np.int32)), (0.2, 0.2, 0.2)),
        (Image.fromarray(np.full((4, 6), 70000, np.int32)), (1.0, 1.0, 1.0)),
    ],
    ids=["grey", "grey+alpha", "alpha", "cmyk", "bilevel", "palette", "16 bit", "32 bit", "beyond 16 bit"],
)
def test_every_pixel_format_becomes_rgb(image: Image.Image, expected: tuple[float, ...]) -> None:
    assert np.allclose(PLAIN(image), np.array(expected)[:, None, None], atol=1e-6)


def test_palette_with_transparency_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("RGB", (6, 4), (255, 0, 51)).quantize(4)
    image.info["transparency"] = b"\x00\xff\xff\xff"
    assert np.allclose(PLAIN(image)[:, 0, 0], (1.0, 0.0, 0.2), atol=1e-6)
    assert not recwarn.list


def test_exif_orientation_is_applied() -> None:
    upright = _noise(4, 6, seed=3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the stored image rotated by 270 degrees
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.info["exif"] = exif.tobytes()
    stored.getexif().load(exif.tobytes())
    same_size = replace(PLAIN, height=6, width=4)
    assert np.array_equal(same_size(stored), same_size(upright))


def test_floating_point_pixels_are_refused() -> None:
    with raises("EF407", "floating-point", "8 or 16 bits"):
        PLAIN(Image.new("F", (6, 4)))


def test_a_resize_that_would_be_huge_is_refused() -> None:
    with raises("EF406", "1x2000000", "256x512000000", MAX_PIXELS, "crop_fraction 1.0"):
        Preprocessing(224, 224)(Image.new("L", (1, 2_000_000)))


def test_dict_round_trip_through_json() -> None:
    preprocessing = Preprocessing(3, 5, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bilinear", 0.9)
    values = json.loads(json.dumps(preprocessing.to_dict()))
    assert values["mean"] == [0.1, 0.2, 0.3]
    assert Preprocessing.from_dict(values) == preprocessing
    with raises("EF413", "missing ['mean']", "unknown ['average']"):
        Preprocessing.from_dict({("average" if name == "mean" else name): v for name, v in values.items()})


@pytest.mark.parametrize(
    ("mean", "std", "normalization"),
    [
        ((0, 0, 0), (1, 1, 1), "scale"),
        ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255), "none"),
        ((0, 0, 0), (0.00392157, 0.00392157, 0.00392157), "none"),  # as people write 1 / 255
        ((0, 0, 0), (1, 1, 0.5), "mean_std"),
        ((0, 0, 0.1), (1, 1, 1), "mean_std"),
        (IMAGENET_MEAN, IMAGENET_STD, "mean_std"),
    ],
)
def test_what_is_done_to_pixels(mean: Any, std: Any, normalization: str) -> None:
    assert Preprocessing(5, 3, mean, std).normalization == normalization


def test_pixels_that_are_scaled_or_left_as_they_are() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 8, 32, 3)
    own = Preprocessing(8, 32, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 0.5)
    plain = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_array_equal(own.with_normalization("none").normalize(pixels), plain)
    np.testing.assert_array_equal(own.with_normalization("scale").normalize(pixels), plain / np.float32(255))
    assert own.with_normalization("mean_std") == own
    assert own.with_normalization("none").resize_mode == "bilinear"
    assert own.with_normalization("none").crop_fraction == 0.5


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"height": 0}, ("height is 0", "above 0")),
        ({"width": 2.5}, ("width is 2.5",)),
        ({"mean": (0.1, 0.2)}, ("mean is (0.1, 0.2)", "three numbers")),
        ({"mean": 0.5}, ("mean is 0.5",)),
        ({"mean": (0.1, "x", 0.3)}, ("mean is (0.1, 'x', 0.3)",)),
        ({"std": (1, 1, 0)}, ("std is (1, 1, 0)", "three numbers above 0")),
        ({"std": (1, 1, float("nan"))}, ("std is (1, 1, nan)",)),
        ({"resize_mode": "nearest"}, ("resize_mode is 'nearest'", "bicubic, bilinear")),
        ({"crop_fraction": 0.0}, ("crop_fraction is 0.0",)),
        ({"crop_fraction": 1.1}, ("crop_fraction is 1.1", "at most 1")),
        (
            {"crop_fraction": 0.0004},
            ("resized for crop_fraction 0.0004", "10000x10000", MAX_PIXELS, "raise crop_fraction"),
        ),
        ({"crop_fraction": 1e-320}, ("infxinf", "raise crop_fraction")),
    ],
)
def test_values_out_of_range(fields: dict[str, Any], values: tuple[str, ...]) -> None:
    with raises("EF413", *values):
        Preprocessing(**{"height": 4, "width": 4} | fields)


@pytest.mark.skipif(int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow before 13 resizes in another order")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_resize_is_that_of_pillow_13(mode: str) -> None:
    """Sizes at which the order of the two directions is one and the other way, and at which it just changes."""
    generator = np.random.default_rng(3)
    sizes = [tuple(generator.integers(1, 200, 4)) for _ in range(60)]
    sizes += [(100, 100, 100, 99), (100, 100, 99, 98), (100, 100, 99, 97), (1, 1, 7, 5), (300, 2, 1, 1)]
    orders = set()
    for height, width, tall, wide in sizes:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))
        step = Preprocessing(int(tall), int(wide), resize_mode=mode, crop_fraction=1.0)
        resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
        resized = np.asarray(image.resize((int(wide), int(tall)), resampling))
        assert np.array_equal(step(image), step.normalize(resized[None])[0])
        orders.add(bool(height > tall and height - tall > 2 * (width - wide)))
    assert orders == {True, False}
