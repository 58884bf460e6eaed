"""The C++ preprocessing as it is, through ctypes: ``runtime/src/preprocessing/preprocessing.h`` field for field."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from edgeformer.data import Preprocessing

RESIZE_MODES = ("bilinear", "bicubic")
PASS_ORDERS = ("Pillow 13", "horizontal first")
PILLOWS_ORDER = PASS_ORDERS[int(PIL.__version__.split(".")[0]) < 13]
"""That of the Pillow that is installed."""
NORMALIZATIONS = ("mean_std", "scale", "none")
LAYOUTS = ("NCHW", "NHWC")
OUTPUT_TYPES = tuple(map(np.dtype, ("float32", "float16", "uint8")))
FORMATS = ("RGB", "BGR", "RGBA", "BGRA", "NV12")
YUV_MATRICES = ("BT.601 limited", "BT.601 full", "BT.709 limited", "BT.709 full")


class Settings(ctypes.Structure):
    """``Settings``."""

    _fields_ = (
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("resize_mode", ctypes.c_int32),
        ("pass_order", ctypes.c_int32),
        ("crop_fraction", ctypes.c_double),
        ("normalization", ctypes.c_int32),
        ("mean", ctypes.c_double * 3),
        ("std", ctypes.c_double * 3),
        ("layout", ctypes.c_int32),
        ("output_type", ctypes.c_int32),
    )


class Source(ctypes.Structure):
    """``Source``."""

    _fields_ = (
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("yuv_matrix", ctypes.c_int32),
        ("orientation", ctypes.c_int32),
        ("stride", ctypes.c_int64),
        ("chroma_stride", ctypes.c_int64),
    )


def settings_of(
    preprocessing: Preprocessing,
    normalization: str = "mean_std",
    layout: str = "NCHW",
    output_type: npt.DTypeLike = "float32",
    pass_order: str = PILLOWS_ORDER,
) -> Settings:
    """The settings in C++ of the definition in Python."""
    return Settings(
        preprocessing.height,
        preprocessing.width,
        RESIZE_MODES.index(preprocessing.resize_mode),
        PASS_ORDERS.index(pass_order),
        preprocessing.crop_fraction,
        NORMALIZATIONS.index(normalization),
        preprocessing.mean,
        preprocessing.std,
        LAYOUTS.index(layout),
        OUTPUT_TYPES.index(np.dtype(output_type)),
    )


def load(path: Path) -> ctypes.CDLL:
    """The library with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    library.preprocess.argtypes = [*[pointer] * 4, ctypes.c_int32, pointer, ctypes.c_size_t]
    library.preprocessingMessage.restype = ctypes.c_char_p
    return library


def run(
    library: ctypes.CDLL,
    settings: Settings,
    pixels: npt.NDArray[np.uint8],
    *,
    pixel_format: str = "RGB",
    orientation: int = 1,
    on_device: bool = False,
) -> npt.NDArray[Any]:
    """Prepare ``[H, W, C]`` pixels, of which only the last axis has to be contiguous.

    Raises:
        ValueError: the library has refused; its message.
    """
    height, width = pixels.shape[:2]
    source = Source(width, height, FORMATS.index(pixel_format), 0, orientation, pixels.strides[0], 0)
    size = (settings.height, settings.width)
    shape = (3, *size) if LAYOUTS[settings.layout] == "NCHW" else (*size, 3)
    # What is not written stays NaN or 255.
    dtype = OUTPUT_TYPES[settings.output_type]
    output: npt.NDArray[Any] = np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)
    references = map(ctypes.byref, (settings, source))
    if library.preprocess(*references, pixels.ctypes.data, None, on_device, output.ctypes.data, output.nbytes):
        raise ValueError(library.preprocessingMessage().decode())
    return output
