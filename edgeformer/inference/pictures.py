"""Pictures as the runtime takes them: decoded by Pillow, turned upright, in RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.data.preprocessing import upright_rgb
from edgeformer.errors import InputError
from edgeformer.text import printable

__all__ = ["Picture", "describe", "pixels_of"]

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file's path, a Pillow image, or ``[height, width, 3]`` uint8 RGB."""


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """A picture's pixels, ``[height, width, 3]`` uint8 RGB, dense.

    Raises:
        InputError: it is none of what is taken, or its file cannot be read as an image.
    """
    if isinstance(picture, Image.Image):
        return np.ascontiguousarray(upright_rgb(picture), np.uint8)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise InputError(
                "EF863",
                f"a picture is {picture.dtype} {list(picture.shape)}; as an array it is uint8 [height, width, 3], RGB",
            )
        return np.ascontiguousarray(picture)
    if isinstance(picture, (str, os.PathLike)):
        return _decoded(Path(picture))
    raise InputError(
        "EF863", f"a picture is a {type(picture).__name__}; it is a path, a Pillow image, or a uint8 array, RGB"
    )


def _decoded(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.ascontiguousarray(upright_rgb(image), np.uint8)
    except FileNotFoundError:
        raise InputError("EF102", f"{printable(str(path))}: there is no such file") from None
    # Pillow's decoders raise these, and OSError among them, for files that are damaged or no images.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError("EF864", f"{printable(str(path))} cannot be read as an image: {error}") from None


def describe(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """The fields of the runtime's `ImageStruct` for pixels that `pixels_of` gave."""
    height, width = pixels.shape[:2]
    return {"width": width, "height": height, "data": pixels.__array_interface__["data"][0]}
