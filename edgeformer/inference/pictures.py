"""Pictures as the runtime takes them: decoded by Pillow, turned upright, in RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.data.image_folder import image_content, with_image
from edgeformer.data.preprocessing import upright_rgb
from edgeformer.errors import InputError

__all__ = ["Picture", "describe", "pixels_of", "upright_pixels"]

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file's path, a Pillow image, or ``[height, width, 3]`` uint8 RGB."""


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """A picture's pixels, ``[height, width, 3]`` uint8 RGB, dense.

    Raises:
        InputError: it is none of what is taken, or its file cannot be read as an image.
    """
    if isinstance(picture, Image.Image):
        return upright_pixels(picture)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise InputError(
                "EF863",
                f"a picture is {picture.dtype} {list(picture.shape)}; as an array it is uint8 [height, width, 3], RGB; "
                "several are a list",
            )
        return np.ascontiguousarray(picture)
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture)
        return with_image(image_content(path), path, upright_pixels)
    raise InputError(
        "EF863", f"a picture is a {type(picture).__name__}; it is a path, a Pillow image, or a uint8 array, RGB"
    )


def upright_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An image's pixels as `pixels_of` has them; raises InputError for floating-point ones."""
    return np.ascontiguousarray(upright_rgb(image), np.uint8)


def describe(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """The fields of the runtime's `ImageStruct` for pixels that `pixels_of` gave."""
    height, width = pixels.shape[:2]
    return {"width": width, "height": height, "data": pixels.__array_interface__["data"][0]}
