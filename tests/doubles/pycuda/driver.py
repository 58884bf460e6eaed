"""Of ``pycuda.driver``: devices, contexts, streams, memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

_driver = ctypes.CDLL("libcuda.so.1")


class Error(Exception):
    """What pycuda raises where the driver refuses something."""


def call(name: str, *arguments: Any) -> None:
    if status := getattr(_driver, name)(*arguments):
        raise Error(f"{name} failed with {status}")


def init() -> None:
    call("cuInit", 0)


class Context:
    """The primary context of a device."""

    synchronized = 0

    def __init__(self, device: int) -> None:
        self._handle = ctypes.c_void_p()
        call("cuDevicePrimaryCtxRetain", ctypes.byref(self._handle), device)

    def push(self) -> None:
        call("cuCtxPushCurrent_v2", self._handle)

    @staticmethod
    def pop() -> None:
        call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    @classmethod
    def synchronize(cls) -> None:
        cls.synchronized += 1


class Device:
    def __init__(self, number: int) -> None:
        self._device = ctypes.c_int()
        call("cuDeviceGet", ctypes.byref(self._device), number)

    def retain_primary_context(self) -> Context:
        return Context(self._device.value)


class Stream:
    def __init__(self) -> None:
        self._handle = ctypes.c_void_p()
        call("cuStreamCreate", ctypes.byref(self._handle), 0)

    @property
    def handle(self) -> int:
        return self._handle.value or 0

    def synchronize(self) -> None:
        call("cuStreamSynchronize", self._handle)


def mem_alloc(nbytes: int) -> int:
    memory = ctypes.c_ulonglong()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(nbytes))
    return memory.value


def pagelocked_empty(shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Memory of the driver as a NumPy array, which is never given back here."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = ctypes.c_void_p()
    call("cuMemHostAlloc", ctypes.byref(memory), ctypes.c_size_t(nbytes), 0)
    assert memory.value is not None
    found = (ctypes.c_char * nbytes).from_address(memory.value)
    array: np.ndarray[Any, Any] = np.frombuffer(found, dtype).reshape(shape)
    return array
