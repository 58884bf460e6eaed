"""Doubles for what timing needs: a machine whose clock runs models of known speed, sensors, and a CUDA driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeformer.inference import Description, TensorDescription
from edgeformer.latency import Times
from edgeformer.latency.load import LoadMeter
from edgeformer.latency.runners import GpuTimes


class Machine:
    """A machine with a clock that moves when models run on it.

    Attributes:
        now: seconds.
        others: processors that other processes keep busy.
        slowness: at a time, how much longer everything takes.
    """

    def __init__(self, seed: int = 0, slowness: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 100.0
        self.others = 0.0
        self.slowness = slowness
        self.cores = 2
        self._random = np.random.default_rng(seed)

    def clock(self) -> float:
        return self.now

    def runner(self, seconds: float, noise: float = 0.01, gpu_share: float | None = None) -> MachineRunner:
        """A model that takes so long, with noise of a log-normal distribution."""
        return MachineRunner(self, seconds, noise, gpu_share)

    def load_meter(self) -> LoadMeter:
        """What tells of the other processes: this one keeps one processor busy all the time."""
        return LoadMeter(
            clock=self.clock, busy=lambda: self.now * (1 + self.others), own=lambda: self.now, cores=self.cores
        )

    def took(self, seconds: float, noise: float) -> float:
        return seconds * self.slowness(self.now) * float(np.exp(self._random.normal(0, noise)))


class MachineRunner:
    """A model on a `Machine`."""

    graph_state = ""

    def __init__(self, machine: Machine, seconds: float, noise: float, gpu_share: float | None) -> None:
        self._machine = machine
        self.seconds = seconds
        self._noise = noise
        self._gpu_share = gpu_share
        self.runs = 0
        self.closed = False

    def run(self) -> Times:
        self.runs += 1
        start = self._machine.now
        took = self._machine.took(self.seconds, self._noise)
        self._machine.now += took
        gpu = None
        if self._gpu_share is not None:
            compute = self._gpu_share * took
            gpu = GpuTimes((took - compute) / 2, compute, (took - compute) / 2)
        return Times(start, start + took / 4, start + took, gpu)

    def close(self) -> None:
        self.closed = True


class SensorsDouble:
    """Sensors that say what they are told to."""

    energy_source = "double"

    def __init__(
        self,
        clock_mhz: float | None = None,
        temperature_c: float | None = None,
        throttled: tuple[str, ...] = (),
        joules: Callable[[], float | None] = lambda: None,
        polled: bool = False,
    ) -> None:
        self._clock_mhz, self._temperature_c, self._throttled = clock_mhz, temperature_c, throttled
        self._joules = joules
        self.polled = polled
        self.asked = 0

    def clock_mhz(self) -> float | None:
        return self._clock_mhz

    def temperature_c(self) -> float | None:
        return self._temperature_c

    def throttled(self) -> tuple[str, ...]:
        return self._throttled

    def joules(self) -> float | None:
        self.asked += 1
        return self._joules()


class CudaDouble:
    """The driver API in host memory. Its GPU has a clock that each copy and each launch moves on.

    Attributes:
        now: the GPU's clock, milliseconds.
        calls: names of the functions that were called.
        failing: a status by name of a function that fails.
        alive: addresses of memory, and handles of streams and events, that were not freed.
        free: device memory, bytes.
        loaded: what a test's `load` was asked for.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        self.alive: set[tuple[str, int]] = set()
        self.free = 1000
        self.loaded: list[tuple[str, int, bool]] = []
        self._memory: dict[int, Any] = {}
        self._events: dict[int, float] = {}
        self._handles = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def function(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.failing:
                return self.failing[name]
            getattr(self, f"_{name.removesuffix('_v2')}", lambda *_: None)(*arguments)
            return 0

        return function

    def _new(self, kind: str, out: Any) -> None:
        self._handles += 1
        out._obj.value = self._handles
        self.alive.add((kind, self._handles))

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: Any) -> None:  # noqa: N802
        self.alive.add(("context", 0))

    def _cuDevicePrimaryCtxRelease(self, device: Any) -> None:  # noqa: N802
        self.alive.discard(("context", 0))

    def _cuDeviceGetPCIBusId(self, text: Any, size: int, device: Any) -> None:  # noqa: N802
        text.value = b"0000:01:00.0"

    def _cuMemGetInfo(self, free: Any, total: Any) -> None:  # noqa: N802
        free._obj.value, total._obj.value = self.free, 1000

    def _cuMemAlloc(self, out: Any, size: int) -> None:  # noqa: N802
        self._allocate("device", out, size)

    def _cuMemHostAlloc(self, out: Any, size: int, flags: int) -> None:  # noqa: N802
        self._allocate("host", out, size)

    def _allocate(self, kind: str, out: Any, size: int) -> None:
        buffer = ctypes.create_string_buffer(size)
        out._obj.value = ctypes.addressof(buffer)
        self._memory[out._obj.value] = buffer
        self.alive.add((kind, out._obj.value))

    def _cuMemFree(self, address: Any) -> None:  # noqa: N802
        self.alive.remove(("device", address.value))

    def _cuMemFreeHost(self, address: Any) -> None:  # noqa: N802
        self.alive.remove(("host", address.value))

    def _cuMemcpyHtoDAsync(self, device: int, host: int, size: int, stream: Any) -> None:  # noqa: N802
        ctypes.memmove(device, host, size)
        self.now += 1.0

    def _cuMemcpyDtoHAsync(self, host: int, device: int, size: int, stream: Any) -> None:  # noqa: N802
        ctypes.memmove(host, device, size)
        self.now += 3.0

    def _cuStreamCreate(self, out: Any, flags: int) -> None:  # noqa: N802
        self._new("stream", out)

    def _cuStreamDestroy(self, stream: Any) -> None:  # noqa: N802
        self.alive.remove(("stream", stream.value))

    def _cuEventCreate(self, out: Any, flags: int) -> None:  # noqa: N802
        self._new("event", out)

    def _cuEventDestroy(self, event: Any) -> None:  # noqa: N802
        self.alive.remove(("event", event.value))

    def _cuEventRecord(self, event: Any, stream: Any) -> None:  # noqa: N802
        self._events[event.value] = self.now

    def _cuEventElapsedTime(self, out: Any, start: Any, end: Any) -> None:  # noqa: N802
        out._obj.value = self._events[end.value] - self._events[start.value]


def tensor(name: str, shape: tuple[int | None, ...], dtype: str = "float32", most: int = 8) -> TensorDescription:
    """An input or output whose first axis may be free, up to ``most``."""
    return TensorDescription(
        name=name,
        dtype=np.dtype(dtype),
        shape=shape,
        minimum=tuple(size or 1 for size in shape),
        optimum=tuple(size or 4 for size in shape),
        maximum=tuple(size or most for size in shape),
    )


class ModelDouble:
    """A model of TensorRT on a `CudaDouble`: it doubles its input, and takes 5 ms of the GPU's clock."""

    def __init__(self, cuda: CudaDouble, outputs: tuple[TensorDescription, ...] | None = None) -> None:
        self._cuda = cuda
        self.streams: list[int] = []
        self.contexts = 0
        self.closed = False
        self._outputs = outputs or (tensor("y", (None, 3)),)

    def describe(self) -> Description:
        return Description(
            name="double",
            task="",
            precision="int8",
            labels=(),
            backend="tensorrt",
            backend_version="10.0",
            backend_library="libnvinfer.so",
            backend_reason="",
            file="model.engine",
            device=0,
            contexts=1,
            takes_images=False,
            image_input=None,
            inputs=(tensor("x", (None, 3)),),
            outputs=self._outputs,
        )

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("a graph that is captured of this run would be of other addresses")

    @contextmanager
    def context(self) -> Iterator[Any]:
        self.contexts += 1
        yield SimpleNamespace(enqueue=self._enqueue, graph_state="1 of 1 shapes captured")
        self.contexts -= 1

    def _enqueue(self, inputs: dict[str, Any], outputs: dict[str, Any], *, stream: int) -> None:
        self.streams.append(stream)
        x, y = inputs["x"], outputs["y"]
        count = int(np.prod(x.shape))
        for index in range(count):
            source = ctypes.c_float.from_address(x.address + 4 * index)
            ctypes.c_float.from_address(y.address + 4 * index).value = 2 * source.value
        self._cuda.now += 5.0

    def close(self) -> None:
        self.closed = True
