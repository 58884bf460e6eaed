"""From an image file's pixels to what a network takes. NumPy and Pillow only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeformer.errors import InputError
from edgeformer.records.terms import Normalization
from edgeformer.text import shortened

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "MAX_PIXELS", "WORDS", "AskedPreprocessing", "Preprocessing"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 89_478_485
"""Pixels above which an image is taken for a decompression bomb: Pillow's own limit, 256 MiB of RGB."""

# Mean and std of what needs neither: (x / 255 - 0) / 1 scales pixels to 0..1, (x / 255 - 0) / (1 / 255) leaves them.
_PLAIN: dict[Normalization, tuple[float, float]] = {"scale": (0.0, 1.0), "none": (0.0, 1 / 255)}
_SAME = 1e-6

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input: turn upright, RGB, resize, centre crop, scale to 0..1, normalize.

    Attributes:
        height: pixels of the result.
        width: pixels of the result.
        mean: of R, G and B, on the scale 0..1.
        std: of R, G and B, on the scale 0..1.
        resize_mode: "bilinear" or "bicubic", both antialiased as Pillow does.
        crop_fraction: 1.0 resizes straight to ``height`` x ``width``, whatever the image's shape. Below 1.0 the image
            is resized, its shape kept, to the smallest size that covers ``height / crop_fraction`` x
            ``width / crop_fraction``, and the centre is cut out: for a square result, shorter side to
            ``size / crop_fraction`` as ImageNet models are evaluated (224 and 0.875: shorter side 256).

    Raises:
        InputError: a value is out of range; one message lists every such value.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize_mode: str = "bicubic"
    crop_fraction: float = 0.875

    def __post_init__(self) -> None:
        problems = []
        for name in ("height", "width"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                problems.append(f"{name} is {shortened(repr(value))}; it must be an integer above 0")
        if not problems and self.height * self.width > MAX_PIXELS:
            problems.append(f"{self.height}x{self.width} is more than {MAX_PIXELS} pixels")
        for name in ("mean", "std"):
            value = getattr(self, name)
            try:
                triple = tuple(float(item) for item in value)
            except (TypeError, ValueError, OverflowError):
                triple = ()
            if len(triple) != 3 or not all(map(math.isfinite, triple)) or (name == "std" and min(triple) <= 0):
                problems.append(
                    f"{name} is {shortened(repr(value))}; it must be three numbers{' above 0' if name == 'std' else ''}"
                )
            object.__setattr__(self, name, triple)
        mode = self.resize_mode
        if not isinstance(mode, str) or mode not in _RESAMPLING:
            problems.append(
                f"resize_mode is {shortened(repr(mode))}; it must be one of {', '.join(sorted(_RESAMPLING))}"
            )
        if type(self.crop_fraction) not in (int, float) or not 0 < self.crop_fraction <= 1:
            problems.append(
                f"crop_fraction is {shortened(repr(self.crop_fraction))}; it must be a number above 0 and at most 1"
            )
        elif not problems:
            wide, tall = self.width / self.crop_fraction, self.height / self.crop_fraction
            if wide * tall > MAX_PIXELS:
                problems.append(
                    f"resized for crop_fraction {self.crop_fraction:g}, an image would be at least "
                    f"{wide:.0f}x{tall:.0f}, more than {MAX_PIXELS} pixels; raise crop_fraction"
                )
        if problems:
            raise InputError("EF413", "the preprocessing cannot be used: " + "; ".join(problems))

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Prepare one image.

        Args:
            image: any Pillow image: EXIF orientation is applied, transparency is dropped, grey and palette become RGB,
                integer grey of more than 8 bits is read as 16-bit and scaled down.

        Returns:
            ``[3, height, width]`` float32, normalized RGB.

        Raises:
            InputError: floating-point pixels, or a shape so narrow that the resized image would be huge.
        """
        pixels = self._resize(upright_rgb(image))
        prepared: NDArray[np.float32] = self.normalize(np.asarray(pixels, np.uint8)[None])[0]
        return prepared

    @property
    def normalization(self) -> Normalization:
        """What happens to pixels: "scale" where the mean is 0 and the std 1, "none" where they are 0 and 1/255."""
        for name, (mean, std) in _PLAIN.items():
            if np.allclose(self.mean, mean, rtol=0, atol=_SAME) and np.allclose(self.std, std, rtol=0, atol=_SAME):
                return name
        return "mean_std"

    def with_normalization(self, normalization: Normalization) -> Preprocessing:
        """The same with pixels only scaled to 0..1 ("scale") or left at 0..255 ("none"); "mean_std" changes nothing."""
        if normalization == "mean_std":
            return self
        mean, std = _PLAIN[normalization]
        return replace(self, mean=(mean,) * 3, std=(std,) * 3)

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``[N, H, W, 3]`` uint8 RGB to ``[N, 3, H, W]`` float32: ``(x / 255 - mean) / std``, no resizing.

        Pixels that are left as they are stay exactly that.
        """
        normalized = images.astype(np.float32)
        if self.normalization != "none":
            scaled = normalized / np.float32(255)
            normalized = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Undo :meth:`to_dict`.

        Raises:
            InputError: a field is missing, unknown or wrong.
        """
        known = {field.name for field in fields(cls)}
        missing, unknown = sorted(known - values.keys()), sorted(values.keys() - known)
        if missing or unknown:
            raise InputError(
                "EF413",
                f"preprocessing: missing {missing or 'nothing'}, unknown {shortened(unknown or 'nothing', 200)}",
            )
        return cls(**values)

    def _resize(self, image: Image.Image) -> Image.Image:
        resampling = _RESAMPLING[self.resize_mode]
        if self.crop_fraction == 1.0:
            return _resized(image, self.width, self.height, resampling)
        tall, wide = math.floor(self.height / self.crop_fraction), math.floor(self.width / self.crop_fraction)
        if tall * image.width >= wide * image.height:
            width, height = max(self.width, tall * image.width // image.height), tall
        else:
            width, height = wide, max(self.height, wide * image.height // image.width)
        if width * height > MAX_PIXELS:
            raise InputError(
                "EF406",
                f"the image is {image.width}x{image.height}: resized for a crop it would be {width}x{height}, more "
                f"than {MAX_PIXELS} pixels; crop it first, or use crop_fraction 1.0",
            )
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        resized = _resized(image, width, height, resampling)
        return resized.crop((left, top, left + self.width, top + self.height))


def _resized(image: Image.Image, width: int, height: int, resampling: Image.Resampling) -> Image.Image:
    """``image`` in another size: as Pillow 13 resizes it, in every version of Pillow.

    Pillow resizes in one direction after the other, with 8 bits in between, so that the order decides; before 13 it was
    horizontally first. A resize in one direction is the same in all of them. `runtime/src/preprocessing` does the same.
    """
    shrinks_more = image.height > height and image.height - height > 2 * (image.width - width)
    between = (image.width, height) if shrinks_more else (width, image.height)
    return image.resize(between, resampling).resize((width, height), resampling)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF data say, in RGB without transparency.

    Pillow's own conversion would clip grey of more than 8 bits at 255.

    Raises:
        InputError: it has floating-point pixels.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError(
            "EF407", "the image has floating-point pixels: save it with 8 or 16 bits, or give arrays instead"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "P":
        # A palette with transparency warns when it goes to RGB directly.
        image = image.convert("RGBA")
    return image.convert("RGB")


AskedPreprocessing = Preprocessing | Literal["none", "scale"]
"""How images are prepared, as a user says it: in full, or the one word for what is done to their pixels."""

WORDS = ("none", "scale")
