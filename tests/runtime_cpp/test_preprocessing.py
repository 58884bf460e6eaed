"""The C++ preprocessing and its kernel give what ``Preprocessing`` and the installed Pillow give, bit for bit."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import PIL
import pytest
from PIL import Image

from edgeformer.data import Preprocessing
from edgeformer.errors import InputError
from tests.runtime_cpp.cases import LEVELS, Case, apart, random_cases
from tests.runtime_cpp.preprocessing import run, settings_of

# Pillow 12.2 and 12.3 resize an image that is a hundred times as tall as wide vertically first.
TALL = 100 if PIL.__version__.startswith("12.") else np.inf


def test_a_thousand_random_images_are_pillows(library: ctypes.CDLL) -> None:
    differences = [
        apart(run(library, settings_of(case.preprocessing), case.pixels, orientation=case.orientation), case.expected())
        for case in random_cases(1000, seed=1)
        if max(case.pixels.shape[:2]) < TALL * min(case.pixels.shape[:2])
    ]
    assert len(differences) >= 990
    # What was promised is 1 of 255; the same fixed-point arithmetic gives 0.
    assert max(differences) == 0


def test_the_kernel_is_pillows(library: ctypes.CDLL) -> None:
    for case in random_cases(60, seed=2, largest=200):
        settings = settings_of(case.preprocessing)
        result = run(library, settings, case.pixels, orientation=case.orientation, on_device=True)
        assert np.array_equal(result, case.expected()), case


def test_normalized_values_are_equal_bit_for_bit(library: ctypes.CDLL) -> None:
    for case in random_cases(40, seed=3, largest=100):
        preprocessing = Preprocessing(case.preprocessing.height, case.preprocessing.width, crop_fraction=0.9)
        expected = replace(case, preprocessing=preprocessing).expected()
        for dtype in ("float32", "float16"):
            settings = settings_of(preprocessing, output_type=dtype)
            result = run(library, settings, case.pixels, orientation=case.orientation)
            assert result.tobytes() == expected.astype(dtype).tobytes(), case


def test_layouts_types_and_normalizations(library: ctypes.CDLL) -> None:
    (case,) = random_cases(1, seed=4)
    scaled = case.expected()
    levels = np.rint(scaled * 255)
    for normalization, dtype, expected in (
        ("scale", "float32", scaled),
        ("none", "float32", levels),
        ("none", "float16", levels),
        ("none", "uint8", levels),
    ):
        for layout, placed in (("NCHW", expected), ("NHWC", expected.transpose(1, 2, 0))):
            settings = settings_of(case.preprocessing, normalization, layout, dtype)
            result = run(library, settings, case.pixels, orientation=case.orientation)
            assert result.dtype == dtype
            assert np.array_equal(result, placed.astype(dtype))


@pytest.mark.parametrize("pixel_format", ["BGR", "RGBA", "BGRA"])
def test_formats_and_strides(library: ctypes.CDLL, pixel_format: str) -> None:
    for case in random_cases(24, seed=5, largest=100):
        height, width = case.pixels.shape[:2]
        order = ["RGB".find(letter) for letter in pixel_format]
        # Rows with a gap, and an alpha of anything.
        stored = np.full((height, width + 3, len(order)), 77, np.uint8)
        for at, channel in enumerate(order):
            if channel >= 0:
                stored[:, :width, at] = case.pixels[..., channel]
        result = run(
            library,
            settings_of(case.preprocessing),
            stored[:, :width],
            pixel_format=pixel_format,
            orientation=case.orientation,
        )
        assert np.array_equal(result, case.expected()), case


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1, 1),
        (1, 50_000),
        (50_000, 1),
        (2, 3),
        (4000, 3000),
        pytest.param(17_000_000, 1, marks=pytest.mark.slow),
        pytest.param(1, 17_000_001, marks=pytest.mark.slow),
    ],
)
def test_extreme_sizes(library: ctypes.CDLL, width: int, height: int) -> None:
    """Sizes beyond 2^24 too, which Pillow rounds to single precision."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    case = Case(pixels, 1, replace(LEVELS, height=5, width=6, crop_fraction=1.0))
    assert np.array_equal(run(library, settings_of(case.preprocessing), pixels), case.expected())


def test_both_orders_of_the_passes(library: ctypes.CDLL) -> None:
    """By resizing one direction at a time, which every Pillow does alike."""
    pixels = np.random.default_rng(6).integers(0, 256, (150, 41, 3), np.uint8)
    image = Image.fromarray(pixels)
    bicubic = Image.Resampling.BICUBIC
    expected = {
        "horizontal first": image.resize((50, 150), bicubic).resize((50, 33), bicubic),
        "Pillow 13": image.resize((41, 33), bicubic).resize((50, 33), bicubic),
    }
    results = []
    for order, resized in expected.items():
        settings = settings_of(Preprocessing(33, 50, crop_fraction=1.0), "none", "NHWC", "uint8", order)
        results.append(run(library, settings, pixels))
        assert np.array_equal(results[-1], np.asarray(resized))
    assert not np.array_equal(results[0], results[1])


def test_what_python_refuses_is_refused_in_the_same_words(library: ctypes.CDLL) -> None:
    pixels = np.zeros((2_000_000, 1, 3), np.uint8)
    preprocessing = Preprocessing(224, 224)
    with pytest.raises(InputError) as definition:
        preprocessing(Image.fromarray(pixels))
    with pytest.raises(ValueError, match="256x512000000") as refusal:
        run(library, settings_of(preprocessing), pixels)
    assert str(refusal.value) in str(definition.value)


def test_values_out_of_range_are_refused_in_the_same_words(library: ctypes.CDLL) -> None:
    settings = settings_of(Preprocessing(4, 4))
    settings.height, settings.crop_fraction = 0, 1.5
    with pytest.raises(InputError) as definition:
        Preprocessing(0, 4, crop_fraction=1.5)
    with pytest.raises(ValueError, match="height is 0") as refusal:
        run(library, settings, np.zeros((4, 4, 3), np.uint8))
    assert str(refusal.value) in str(definition.value)
