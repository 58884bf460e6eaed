"""What is timed: a loaded model with its arrays, on the host or on a CUDA device, or any other call."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeformer.errors import InputError
from edgeformer.inference import Context, Description, Model, TensorDescription
from edgeformer.latency.cuda import Cuda
from edgeformer.latency.kernel_files import text_of
from edgeformer.ops.memory import Buffer, bfloat16

__all__ = ["CallRunner", "DeviceRunner", "GpuTimes", "HostRunner", "Runner", "Times", "arrays_for", "default_batch"]


class GpuTimes(NamedTuple):
    """What the GPU took for one run, by events, in seconds.

    Attributes:
        copy_in: copies of the inputs to the device.
        compute: the run itself.
        copy_out: copies of the outputs to the host.
    """

    copy_in: float
    compute: float
    copy_out: float


class Times(NamedTuple):
    """One run, by the host's clock, in seconds.

    Attributes:
        start: before the inputs are copied.
        enqueued: when the host has enqueued everything; on the CPU the end.
        end: when the outputs are on the host.
        gpu: by events; None where no GPU runs the model.
    """

    start: float
    enqueued: float
    end: float
    gpu: GpuTimes | None = None


class Runner(Protocol):
    """Something that can be run again and again, and says how long it took."""

    def run(self) -> Times:
        """Run once and wait for it."""
        ...

    @property
    def graph_state(self) -> str:
        """What it says of CUDA graphs."""
        ...

    def close(self) -> None:
        """Free what it holds beside the model."""
        ...


class CallRunner:
    """Any function that is done when it returns."""

    graph_state = ""

    def __init__(self, call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> None:
        """Take the function.

        Args:
            call: is called without arguments; what it returns is dropped after the time is taken.
            clock: seconds.
        """
        self._call = call
        self._clock = clock

    def run(self) -> Times:
        """Call it once."""
        clock, call = self._clock, self._call
        start = clock()
        result = call()
        end = clock()
        del result
        return Times(start, end, end)

    def close(self) -> None:
        """Nothing is held."""


class HostRunner(CallRunner):
    """A model with NumPy arrays: `Model.run`, as an application calls it. It has no GPU time."""

    def __init__(self, model: Model, batch: int) -> None:
        """Make the arrays.

        Raises:
            InputError: the model has another batch.
        """
        feeds = arrays_for(model.describe(), batch)
        super().__init__(lambda: model.run(feeds))


class DeviceRunner:
    """A model on a CUDA device: copies from page-locked memory, the run, and copies back, with an event between each.

    Attributes:
        graph_state: what the runtime says of CUDA graphs.
    """

    def __init__(self, model: Model, batch: int, cuda: Cuda, clock: Callable[[], float] = time.perf_counter) -> None:
        """Make arrays and events, and take a context of the model.

        Raises:
            InputError: the model has another batch, or an output whose size only a run tells.
            EnvironmentFault: the device's memory has run out, or CUDA reports another error.
        """
        found = model.describe()
        self._cuda = cuda
        self._clock = clock
        self._held = ExitStack()
        self._context: Context = self._held.enter_context(model.context())
        self._in: list[tuple[int, int, int]] = []
        self._out: list[tuple[int, int, int]] = []
        self._inputs: dict[str, Buffer] = {}
        self._outputs: dict[str, Buffer] = {}
        for name, array in arrays_for(found, batch).items():
            device, host = cuda.device_memory(array.nbytes), cuda.host_memory(array.nbytes)
            _fill(host, array)
            self._in.append((device, host, array.nbytes))
            self._inputs[name] = Buffer(device, array.shape, array.dtype)
        for info in found.outputs:
            shape = _output_shape(found, info, batch)
            size = int(np.prod(shape, dtype=np.int64)) * info.dtype.itemsize
            device, host = cuda.device_memory(size), cuda.host_memory(size)
            self._out.append((host, device, size))
            self._outputs[info.name] = Buffer(device, shape, info.dtype)
        self._events = [cuda.event() for _ in range(4)]

    @property
    def graph_state(self) -> str:
        """What the runtime says of CUDA graphs."""
        return self._context.graph_state

    def run(self) -> Times:
        """Run once and wait for it."""
        cuda, clock = self._cuda, self._clock
        begin, copied, computed, ended = self._events
        start = clock()
        begin.record()
        for device, host, size in self._in:
            cuda.copy_to_device(device, host, size)
        copied.record()
        self._context.enqueue(self._inputs, self._outputs, stream=cuda.stream.value or 0)
        computed.record()
        for host, device, size in self._out:
            cuda.copy_to_host(host, device, size)
        ended.record()
        enqueued = clock()
        cuda.synchronize()
        end = clock()
        gpu = GpuTimes(copied.seconds_since(begin), computed.seconds_since(copied), ended.seconds_since(computed))
        return Times(start, enqueued, end, gpu)

    def close(self) -> None:
        """Give the context back; the memory is the device's `Cuda`'s."""
        self._held.close()


def default_batch(description: Description) -> int:
    """The batch that a model was made for: what it fixes, else what its engine is fastest for."""
    info = description.inputs[0]
    return (info.shape[0] or info.optimum[0]) if info.shape else 1


def arrays_for(description: Description, batch: int) -> dict[str, NDArray[Any]]:
    """Random inputs for a model, the same ones each time.

    Args:
        description: of the model.
        batch: size of the first axis where it is free; other free sizes are those that the engine is fastest for.

    Raises:
        InputError: the model's first input fixes another batch, or the machine's memory does not hold the inputs.
    """
    generator = np.random.default_rng(0)
    shapes = {}
    for index, info in enumerate(description.inputs):
        fixed = info.shape[0] if info.shape else None
        if not index and fixed not in (None, batch):
            raise InputError(
                "EF915",
                f"{description.file} fixes a batch of {fixed}, and {batch} is asked for: leave out --batch, or build "
                "it with a range such as --batch 1:8:32",
            )
        free = [size or info.optimum[axis] for axis, size in enumerate(info.shape)]
        if info.shape and info.shape[0] is None:
            free[0] = batch
        shapes[info.name] = tuple(free)
    size = sum(math.prod(shapes[info.name]) * info.dtype.itemsize for info in description.inputs)
    available = _available_bytes()
    if available is not None and size > available:
        raise InputError(
            "EF920",
            f"the inputs of a batch of {batch} take {size / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory are "
            "free: give a smaller --batch",
        )
    return {info.name: _random(generator, shapes[info.name], info.dtype) for info in description.inputs}


def _available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that can be had without swapping; None where the kernel does not tell."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text_of(meminfo), re.MULTILINE)
    return None if found is None else 1024 * int(found[1])


def _random(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f" or (dtype == bfloat16 and dtype.kind != "V"):
        return generator.standard_normal(shape, np.float32).astype(dtype)
    if dtype in (np.dtype(np.uint8), np.dtype(np.int8)):
        return generator.integers(0, 128, shape).astype(dtype)
    if dtype.kind in "iu":  # indices, which only small numbers surely are
        return generator.integers(0, 2, shape).astype(dtype)
    return np.zeros(shape, dtype)


def _output_shape(found: Description, info: TensorDescription, batch: int) -> tuple[int, ...]:
    sizes = [batch if axis == 0 and size is None else size for axis, size in enumerate(info.shape)]
    if None in sizes:
        raise InputError(
            "EF865",
            f"only a run tells the size of output `{info.name}` of {found.file}, {list(info.shape)}: it cannot be "
            "timed on a GPU",
        )
    return tuple(size for size in sizes if size is not None)


def _fill(address: int, array: NDArray[Any]) -> None:
    """Copy an array to host memory."""
    import ctypes

    ctypes.memmove(address, array.ctypes.data, array.nbytes)
