"""What is timed: NumPy arrays on the host, and arrays on a device with events between the steps."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeformer.inference import load
from edgeformer.latency import CallRunner, DeviceRunner, HostRunner
from edgeformer.latency.cuda import Cuda
from edgeformer.latency.runners import _available_bytes, arrays_for, default_batch
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, saved
from tests.latency.doubles import CudaDouble, ModelDouble, tensor
from tests.raising import raises


def description(**changes: object):  # type: ignore[no-untyped-def]
    return replace(ModelDouble(CudaDouble()).describe(), **changes)  # type: ignore[arg-type]


def test_a_call_is_timed() -> None:
    now = iter([1.0, 1.5])
    calls = []
    times = CallRunner(lambda: calls.append(1), clock=lambda: next(now)).run()
    assert (times.start, times.enqueued, times.end, times.gpu, calls) == (1.0, 1.5, 1.5, None, [1])


def test_a_model_on_the_host(tmp_path: Path) -> None:
    with load(saved(classifier(), tmp_path / "model.onnx"), threads=1) as model:
        times = HostRunner(model, 2).run()
        assert times.end > times.start
        assert times.gpu is None


def test_a_model_on_a_device() -> None:
    driver = CudaDouble()
    model = ModelDouble(driver)
    now = iter([1.0, 2.0, 4.0] * 2)
    with Cuda(library=driver) as cuda:
        runner = DeviceRunner(model, 2, cuda, clock=lambda: next(now))  # type: ignore[arg-type]
        for _ in range(2):
            times = runner.run()
            assert (times.start, times.enqueued, times.end) == (1.0, 2.0, 4.0)
            assert times.gpu == pytest.approx((1e-3, 5e-3, 3e-3))
        assert model.streams == [cuda.stream.value] * 2
        # What came back is what the model made of the input.
        feeds = arrays_for(model.describe(), 2)
        ((host, _, size),) = runner._out
        found = np.frombuffer(ctypes.string_at(host, size), np.float32).reshape(2, 3)
        assert np.array_equal(found, 2 * feeds["x"])
        assert model.contexts == 1
        runner.close()
        assert model.contexts == 0
    assert driver.alive == set()


def test_an_output_whose_size_only_a_run_tells() -> None:
    driver = CudaDouble()
    model = ModelDouble(driver, (tensor("boxes", (None, None)),))
    with Cuda(library=driver) as cuda, raises("EF865", "boxes", "model.engine"):
        DeviceRunner(model, 2, cuda)  # type: ignore[arg-type]


def test_the_batch_that_a_model_was_made_for() -> None:
    assert default_batch(description()) == 4
    assert default_batch(description(inputs=(tensor("x", (6, 3)),))) == 6
    assert default_batch(description(inputs=(tensor("x", ()),))) == 1


def test_arrays_of_every_kind() -> None:
    kinds = ("float32", "float16", "uint8", "int64", "bool")
    inputs = tuple(tensor(kind, (None, 50), kind) for kind in kinds)
    arrays = arrays_for(description(inputs=inputs), 7)
    for kind in kinds:
        assert (arrays[kind].shape, arrays[kind].dtype) == ((7, 50), np.dtype(kind))
    assert abs(float(arrays["float32"].std()) - 1) < 0.1
    assert len(np.unique(arrays["uint8"])) > 50
    assert set(np.unique(arrays["int64"])) == {0, 1}
    again = arrays_for(description(inputs=inputs), 7)
    assert all(np.array_equal(arrays[kind], again[kind]) for kind in kinds)


def test_other_free_sizes_are_those_that_the_engine_is_fastest_for() -> None:
    (array,) = arrays_for(description(inputs=(tensor("x", (None, 3, None)),)), 2).values()
    assert array.shape == (2, 3, 4)


def test_a_fixed_batch() -> None:
    fixed = description(inputs=(tensor("x", (3, 2)), tensor("sizes", (9,))))
    assert [array.shape for array in arrays_for(fixed, 3).values()] == [(3, 2), (9,)]
    with raises("EF915", "model.engine", "batch of 3", "4 is asked"):
        arrays_for(fixed, 4)


def test_a_batch_that_memory_does_not_hold() -> None:
    with raises("EF920", "batch of 1000000000000", "12000.0 GB", "--batch"):
        arrays_for(description(), 10**12)


def test_where_the_kernel_does_not_tell_what_is_free(tmp_path: Path) -> None:
    assert _available_bytes(tmp_path / "no") is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:      2 kB\n")
    assert _available_bytes(tmp_path / "meminfo") == 2048
