"""Of ``pycuda.gpuarray``: arrays in device memory."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

# By pycuda's own name: what the process that finds this folder knows it by.
from pycuda import driver


class GPUArray:
    """A dense array in device memory."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.gpudata = driver.mem_alloc(max(1, self.nbytes))

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "strides": np.empty(self.shape, self.dtype).strides,
            "data": (self.gpudata, False),
            "typestr": self.dtype.str,
            "stream": None,
            "version": 3,
        }

    def set_async(self, ary: np.ndarray[Any, Any], stream: Any = None) -> None:
        assert (ary.shape, ary.dtype) == (self.shape, self.dtype)
        size, handle = ctypes.c_size_t(self.nbytes), ctypes.c_void_p(0 if stream is None else stream.handle)
        driver.call("cuMemcpyHtoDAsync_v2", ctypes.c_ulonglong(self.gpudata), ary.ctypes, size, handle)

    def get_async(self, stream: Any = None, ary: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        to = np.empty(self.shape, self.dtype) if ary is None else ary
        assert (to.shape, to.dtype) == (self.shape, self.dtype)
        size, handle = ctypes.c_size_t(self.nbytes), ctypes.c_void_p(0 if stream is None else stream.handle)
        driver.call("cuMemcpyDtoHAsync_v2", to.ctypes, ctypes.c_ulonglong(self.gpudata), size, handle)
        return to

    def get(self) -> np.ndarray[Any, Any]:
        return self.get_async()


def empty(shape: tuple[int, ...], dtype: Any) -> GPUArray:
    return GPUArray(shape, dtype)


def to_gpu(ary: np.ndarray[Any, Any]) -> GPUArray:
    made = GPUArray(ary.shape, ary.dtype)
    made.set_async(ary)
    return made
