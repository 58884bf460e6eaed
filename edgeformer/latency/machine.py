"""The machine's state while a model runs: clocks, temperature, throttling, power; and what the machine is."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeformer.latency.kernel_files import number_of, text_of
from edgeformer.latency.nvml import NvmlSensors
from edgeformer.latency.tegra import TegraSensors, power_mode
from edgeformer.records.latency import EnergyFigures, MachineFacts, Span, StateFigures
from edgeformer.version import __version__

__all__ = ["CpuSensors", "Sensors", "StateMeter", "describe_machine", "sensors_for"]

# How often sensors that only tell the power of the moment are read while a block runs, seconds.
_POLL = 0.02
# Kinds of thermal zones that are the processor's, where there are several.
_CPU_ZONES = ("x86_pkg_temp", "cpu-thermal", "CPU-therm", "k10temp")


class Sensors(Protocol):
    """What a machine tells of one device; None where it does not.

    Attributes:
        energy_source: what tells the energy.
        polled: the power of the moment is all that is told, so that `joules` is called while a model runs.
    """

    energy_source: str
    polled: bool

    def clock_mhz(self) -> float | None:
        """The clock at the moment."""
        ...

    def temperature_c(self) -> float | None:
        """The temperature at the moment."""
        ...

    def throttled(self) -> tuple[str, ...]:
        """Why the device slows its clocks down at the moment."""
        ...

    def joules(self) -> float | None:
        """Energy that was drawn since some time."""
        ...


class CpuSensors:
    """The processor, by the kernel's files."""

    energy_source = ""
    polled = False

    def __init__(self, root: Path = Path("/")) -> None:
        """Find the files.

        Args:
            root: of the file system.
        """
        folder = root / "sys/devices/system/cpu"
        self._clocks = sorted(folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        self._temperature = next((zone / "temp" for zone in zones if text_of(zone / "type") in _CPU_ZONES), None)

    def clock_mhz(self) -> float | None:
        """Mean of the processors' clocks: which of them runs the model is not known."""
        read = [number for path in self._clocks if (number := number_of(path)) is not None]
        return sum(read) / len(read) / 1e3 if read else None

    def temperature_c(self) -> float | None:
        """Of the package."""
        number = None if self._temperature is None else number_of(self._temperature)
        return None if number is None else number / 1e3

    def throttled(self) -> tuple[str, ...]:
        """The kernel does not tell."""
        return ()

    def joules(self) -> float | None:
        """The kernel tells it to root alone."""
        return None


class StateMeter:
    """Reads sensors at the ends of a model's blocks."""

    def __init__(self, sensors: Sensors) -> None:
        """Nothing is read yet."""
        self._sensors = sensors
        self._clocks: list[float] = []
        self._temperatures: list[float] = []
        self._throttled: set[str] = set()
        self._joules = self._seconds = 0.0
        self._images = 0
        self._before: float | None = None
        self._began = self._next = 0.0
        self._clock: Callable[[], float] | None = None

    def begin(self, clock: Callable[[], float]) -> None:
        """A block begins.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._before = self._sensors.joules()
        self._began = clock()
        self._next = self._began + _POLL

    def between(self) -> None:
        """A run of the block is over."""
        if self._sensors.polled and self._clock is not None and self._clock() >= self._next:
            self._sensors.joules()
            self._next += _POLL

    def end(self, images: int) -> None:
        """A block of so many images is over."""
        after = self._sensors.joules()
        if self._before is not None and after is not None and self._clock is not None:
            self._joules += after - self._before
            self._seconds += self._clock() - self._began
            self._images += images
        for read, kept in (
            (self._sensors.clock_mhz(), self._clocks),
            (self._sensors.temperature_c(), self._temperatures),
        ):
            if read is not None:
                kept.append(read)
        self._throttled.update(self._sensors.throttled())

    def figures(self) -> StateFigures:
        """The sum of it."""
        energy = None
        if self._images and self._seconds and self._joules > 0:
            energy = EnergyFigures(
                joules_per_image=float(f"{self._joules / self._images:.6g}"),
                watts=round(self._joules / self._seconds, 3),
                source=self._sensors.energy_source,
            )
        return StateFigures(
            clock_mhz=_span(self._clocks),
            temperature_c=_span(self._temperatures),
            throttled=tuple(sorted(self._throttled)),
            energy=energy,
        )


def sensors_for(device_bus_id: str | None, root: Path = Path("/")) -> tuple[Sensors, str]:
    """The sensors of what runs a model.

    Args:
        device_bus_id: of the GPU on the PCI bus; None where the processor runs it.
        root: of the file system.

    Returns:
        The sensors, and why those of the GPU are not read where they are not.
    """
    if device_bus_id is None:
        return CpuSensors(root), ""
    tegra = TegraSensors.find(root)
    if tegra is not None:
        return tegra, ""
    found = NvmlSensors.open(device_bus_id)
    return (CpuSensors(root), found) if isinstance(found, str) else (found, "")


def describe_machine(versions: dict[str, str], gpu: str | None, driver: str | None) -> MachineFacts:
    """What measured.

    Args:
        versions: of the backends, by name.
        gpu: name of the GPU.
        driver: its version.
    """
    own = {"edgeformer": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return MachineFacts(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        gpu=gpu,
        driver=driver,
        power_mode=power_mode(),
        governor=text_of(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or None,
        versions={**own, **versions},
    )


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next((name for name in names if name), platform.machine())


def _span(read: Sequence[float]) -> Span | None:
    if not read:
        return None
    return Span(least=round(min(read), 1), mean=round(sum(read) / len(read), 1), greatest=round(max(read), 1))
