"""The driver API of CUDA as far as timing needs it: memory, a stream, and events. Standard library alone.

``libcuda.so.1`` comes with the driver, so it is there wherever an engine can run; streams and memory are those of the
runtime library, too, which works in the same context.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from edgeformer.errors import EnvironmentFault

__all__ = ["Cuda", "Event"]

_LIBRARY = "libcuda.so.1"
# CU_EVENT_DEFAULT: with timing. CU_STREAM_NON_BLOCKING: does not wait for the default stream.
_EVENT_DEFAULT = 0
_NON_BLOCKING = 1
# Arguments of each function, so that ctypes cuts no address to 32 bits.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetPCIBusId": (ctypes.c_char_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (c_void_p, c_void_p),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (c_void_p, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (c_void_p, c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
}


class Event:
    """A point in a stream.

    Attributes:
        handle: of the driver.
    """

    def __init__(self, cuda: Cuda) -> None:
        """Make one, with timing."""
        self._cuda = cuda
        self.handle = c_void_p()
        cuda.call("cuEventCreate", byref(self.handle), _EVENT_DEFAULT)

    def record(self) -> None:
        """Let it happen when the stream has passed what was enqueued before."""
        self._cuda.call("cuEventRecord", self.handle, self._cuda.stream)

    def seconds_since(self, earlier: Event) -> float:
        """Time between two events that have happened."""
        milliseconds = c_float()
        self._cuda.call("cuEventElapsedTime", byref(milliseconds), earlier.handle, self.handle)
        return milliseconds.value / 1e3


class Cuda:
    """A device's primary context, current in this thread, with a stream; use it as a context manager.

    Attributes:
        stream: the stream that copies, runs and events are enqueued on.
    """

    def __init__(self, device: int = 0, library: Any = None) -> None:
        """Start to work with a device.

        Args:
            device: its CUDA number.
            library: the driver library; None opens the system's.

        Raises:
            EnvironmentFault: there is no driver or no such device.
        """
        self._library = library or self._open()
        self._device = c_int()
        self._memory: list[tuple[str, Any]] = []
        self._events: list[Event] = []
        self.stream = c_void_p()
        context = c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", byref(self._device), device)
        self.call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        try:
            self.call("cuCtxSetCurrent", context)
            self.call("cuStreamCreate", byref(self.stream), _NON_BLOCKING)
        except BaseException:
            self._library.cuDevicePrimaryCtxRelease_v2(self._device)
            raise

    @staticmethod
    def _open() -> Any:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise EnvironmentFault("EF650", f"no CUDA GPU: {_LIBRARY} cannot be loaded: {error}") from error
        for name, arguments in _FUNCTIONS.items():
            getattr(library, name).argtypes = arguments
        return library

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            EnvironmentFault: it reports an error.
        """
        if status := getattr(self._library, name)(*arguments):
            raise EnvironmentFault("EF768", f"{name} fails with CUDA error {status}")

    @property
    def bus_id(self) -> str:
        """Where the device is on the PCI bus, by which NVML knows it."""
        text = ctypes.create_string_buffer(32)
        self.call("cuDeviceGetPCIBusId", text, len(text), self._device)
        return text.value.decode()

    def free_bytes(self) -> int:
        """Device memory that is free."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    def device_memory(self, size: int) -> int:
        """The address of new device memory of ``size`` bytes, freed by `close`."""
        address = c_uint64()
        self.call("cuMemAlloc_v2", byref(address), max(1, size))
        self._memory.append(("cuMemFree_v2", address))
        return address.value

    def host_memory(self, size: int) -> int:
        """The address of new page-locked host memory of ``size`` bytes, freed by `close`."""
        address = c_void_p()
        self.call("cuMemHostAlloc", byref(address), max(1, size), 0)
        self._memory.append(("cuMemFreeHost", address))
        return address.value or 0

    def copy_to_device(self, device: int, host: int, size: int) -> None:
        """Enqueue a copy of ``size`` bytes."""
        self.call("cuMemcpyHtoDAsync_v2", device, host, size, self.stream)

    def copy_to_host(self, host: int, device: int, size: int) -> None:
        """Enqueue a copy of ``size`` bytes."""
        self.call("cuMemcpyDtoHAsync_v2", host, device, size, self.stream)

    def event(self) -> Event:
        """A new event of this stream, freed by `close`."""
        event = Event(self)
        self._events.append(event)
        return event

    def synchronize(self) -> None:
        """Wait until the stream has passed everything."""
        self.call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        """Wait for the stream, and free what was made here."""
        if not self.stream:
            return
        self._library.cuStreamSynchronize(self.stream)
        for event in self._events:
            self._library.cuEventDestroy_v2(event.handle)
        for free, address in self._memory:
            getattr(self._library, free)(address)
        self._library.cuStreamDestroy_v2(self.stream)
        self._library.cuDevicePrimaryCtxRelease_v2(self._device)
        self.stream = c_void_p()

    def __enter__(self) -> Cuda:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
