"""The driver API, on a double in host memory."""

from __future__ import annotations

import ctypes

import pytest

from edgeformer.latency.cuda import Cuda
from tests.latency.doubles import CudaDouble
from tests.raising import raises


def test_copies_and_events() -> None:
    driver = CudaDouble()
    with Cuda(library=driver) as cuda:
        assert cuda.bus_id == "0000:01:00.0"
        host, device, back = cuda.host_memory(4), cuda.device_memory(4), cuda.host_memory(4)
        ctypes.memmove(host, b"abcd", 4)
        first, second, third = cuda.event(), cuda.event(), cuda.event()
        first.record()
        cuda.copy_to_device(device, host, 4)
        second.record()
        cuda.copy_to_host(back, device, 4)
        third.record()
        cuda.synchronize()
        assert ctypes.string_at(back, 4) == b"abcd"
        assert second.seconds_since(first) == pytest.approx(1e-3)
        assert third.seconds_since(second) == pytest.approx(3e-3)
        assert third.seconds_since(first) == pytest.approx(4e-3)
    assert driver.alive == set()


def test_everything_is_freed_once() -> None:
    driver = CudaDouble()
    cuda = Cuda(library=driver)
    cuda.device_memory(0)
    cuda.event()
    cuda.close()
    freed = list(driver.calls)
    cuda.close()
    assert driver.calls == freed
    assert driver.alive == set()


def test_free_memory() -> None:
    driver = CudaDouble()
    driver.free = 123
    with Cuda(library=driver) as cuda:
        assert cuda.free_bytes() == 123


def test_a_call_that_fails() -> None:
    driver = CudaDouble()
    driver.failing["cuMemAlloc_v2"] = 2
    with Cuda(library=driver) as cuda, raises("EF768", "cuMemAlloc_v2", 2):
        cuda.device_memory(8)
    assert driver.alive == set()
    driver.failing = {"cuStreamCreate": 700}
    with raises("EF768", "cuStreamCreate", 700):
        Cuda(library=driver)
    assert driver.alive == set()


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeformer.latency.cuda._LIBRARY", "libno_such_driver.so.1")
    with raises("EF650", "libno_such_driver.so.1"):
        Cuda()
