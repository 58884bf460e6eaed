"""Pictures with what a model says of them written into their upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgeformer.artifacts import replacing
from edgeformer.inference.model import Prediction
from edgeformer.text import printable, shortened

__all__ = ["annotated", "save_annotated"]

# Of the picture's shorter side; legible from 120 pixels on.
_LINE = 1 / 24
_SMALLEST = 10
_LONGEST_LABEL = 40
_BEHIND, _TEXT = (0, 0, 0, 160), (255, 255, 255, 255)
_JPEG_QUALITY = 92


def annotated(pixels: NDArray[np.uint8], predictions: Sequence[Prediction]) -> Image.Image:
    """A picture with a line for each class.

    Args:
        pixels: ``[height, width, 3]`` uint8 RGB.
        predictions: best first.

    Returns:
        An RGB image of the same size.
    """
    image = Image.fromarray(pixels)
    font = _font(max(_SMALLEST, round(min(image.size) * _LINE)))
    text = "\n".join(_line(one) for one in predictions)
    if not isinstance(font, ImageFont.FreeTypeFont):
        text = text.encode("latin-1", "replace").decode("latin-1")  # a bitmap font has no other letters
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    left, top, right, bottom = draw.multiline_textbbox((4, 4), text, font=font)
    draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=_BEHIND)
    draw.multiline_text((4, 4), text, font=font, fill=_TEXT)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def save_annotated(path: Path, pixels: NDArray[np.uint8], predictions: Sequence[Prediction]) -> None:
    """Write `annotated` as JPEG or PNG, by the name; whole, or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    image = annotated(pixels, predictions)
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    with replacing(path) as partial:
        image.save(partial, "JPEG" if jpeg else "PNG", **({"quality": _JPEG_QUALITY} if jpeg else {}))


def _line(one: Prediction) -> str:
    label = printable(shortened(one.label, _LONGEST_LABEL))
    return f"{label} {100 * one.probability:.1f} %"


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    # Pillow before 10.1 takes no size, and one that was built without FreeType has one size alone.
    except (TypeError, OSError):
        return ImageFont.load_default()
