"""A GPU's sensors, on a double of the module pynvml."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edgeformer.latency.nvml import NvmlSensors


class NVMLError(Exception):
    pass


def nvml(**functions: Any) -> Any:
    def missing(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    names = (
        *("nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksThrottleReasons"),
        "nvmlDeviceGetTotalEnergyConsumption",
    )
    return SimpleNamespace(
        **{
            "NVMLError": NVMLError,
            "NVML_CLOCK_SM": 1,
            "NVML_TEMPERATURE_GPU": 0,
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByPciBusId": lambda bus_id: bus_id,
            **dict.fromkeys(names, missing),
            **functions,
        }
    )


def test_what_a_gpu_tells() -> None:
    module = nvml(
        nvmlDeviceGetClockInfo=lambda handle, kind: 1980 if (handle, kind) == (b"0000:01:00.0", 1) else 0,
        nvmlDeviceGetTemperature=lambda handle, kind: 63,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 12_500,
        # A limit on power (0x4), which is a setting, and heat (0x40).
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x44,
    )
    sensors = NvmlSensors.open("0000:01:00.0", module)
    assert isinstance(sensors, NvmlSensors)
    assert (sensors.clock_mhz(), sensors.temperature_c(), sensors.joules()) == (1980.0, 63.0, 12.5)
    assert sensors.throttled() == ("hardware thermal slowdown",)
    assert not sensors.polled


def test_a_gpu_that_tells_nothing() -> None:
    sensors = NvmlSensors.open("0000:01:00.0", nvml())
    assert isinstance(sensors, NvmlSensors)
    assert (sensors.clock_mhz(), sensors.temperature_c(), sensors.joules(), sensors.throttled()) == (
        None,
        None,
        None,
        (),
    )


def test_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise NVMLError("Driver Not Loaded")

    found = NvmlSensors.open("0000:01:00.0", nvml(nvmlInit=fails))
    assert isinstance(found, str)
    assert "Driver Not Loaded" in found
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = NvmlSensors.open("0000:01:00.0")
    assert isinstance(found, str)
    assert "edgeformer[bench]" in found
