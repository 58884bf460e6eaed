from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from edgeformer.machine import devices
from edgeformer.machine.devices import Gpu, find_gpus


class FakeDriver:
    """The six driver calls, for two GPUs; every status can be made an error."""

    def __init__(self, init: int = 0, count_status: int = 0, count: int = 2) -> None:
        self.init, self.count_status, self.count = init, count_status, count

    def cuInit(self, flags: int) -> int:  # noqa: N802  # the driver's name
        return self.init

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 13010
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return self.count_status

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = f"GPU {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        memory._obj.value = 8_000_000_000 * (device.value + 1)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8 + 4 * device.value, 76: 7 - 7 * device.value}[attribute]
        return 0


def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: FakeDriver | None) -> None:
    def load(name: str) -> FakeDriver:
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(devices, "_DRIVER_VERSION_FILE", tmp_path / "version")


def test_gpus_are_listed_with_sm_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, tmp_path, FakeDriver())
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module  580.65.06  Release Build\n")
    survey = find_gpus()
    assert survey.gpus == (Gpu(0, "GPU 0", 87, 8_000_000_000), Gpu(1, "GPU 1", 120, 16_000_000_000))
    assert (survey.cuda_version, survey.driver_version, survey.problem) == ("13.1", "580.65.06", "")


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, tmp_path, None)
    survey = find_gpus()
    assert survey.gpus == ()
    assert survey.problem == "no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    assert survey.cuda_version is None


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (FakeDriver(init=100), "the NVIDIA driver does not start (cuInit gives CUDA error 100)"),
        (FakeDriver(count_status=3), "the NVIDIA driver lists no GPU (CUDA error 3)"),
        (FakeDriver(count=0), "the NVIDIA driver finds no GPU"),
    ],
)
def test_driver_without_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: FakeDriver, problem: str) -> None:
    use(monkeypatch, tmp_path, driver)
    survey = find_gpus()
    assert survey.gpus == ()
    assert survey.problem == problem
