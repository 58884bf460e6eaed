"""A GPU's clocks, temperature, throttling and energy by NVML, through the package nvidia-ml-py."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["NvmlSensors"]

T = TypeVar("T")

# nvmlClocksEventReasons of nvml.h: those that say that the GPU is slower than its load asks for.
_REASONS = {
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class NvmlSensors:
    """One GPU."""

    energy_source = "NVML energy counter"
    polled = False

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Take over a GPU; `open` is what finds it.

        Args:
            nvml: the module pynvml, initialized.
            handle: of the GPU.
        """
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def open(cls, bus_id: str, nvml: ModuleType | None = None) -> NvmlSensors | str:
        """The sensors of a GPU, or why there are none.

        Args:
            bus_id: where the GPU is on the PCI bus.
            nvml: the module; None imports it.
        """
        if nvml is None:
            try:
                import pynvml as nvml  # type: ignore[no-redef]
            except ImportError:
                return "clocks, temperature and energy of the GPU are not read: pip install 'edgeformer[bench]'"
        assert nvml is not None
        try:
            nvml.nvmlInit()
            return cls(nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus_id.encode()))
        except nvml.NVMLError as error:
            return f"clocks, temperature and energy of the GPU are not read: NVML says: {error}"

    def clock_mhz(self) -> float | None:
        """Of the multiprocessors."""
        nvml = self._nvml
        return self._ask(lambda: float(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM)))

    def temperature_c(self) -> float | None:
        """Of the GPU."""
        nvml = self._nvml
        return self._ask(lambda: float(nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU)))

    def throttled(self) -> tuple[str, ...]:
        """Heat and power brakes; a limit on power is a setting, and shows in the clocks."""
        bits = self._ask(lambda: int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))) or 0
        return tuple(word for bit, word in _REASONS.items() if bits & bit)

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        return self._ask(lambda: int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3)

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError:  # not every GPU tells everything
            return None
