"""A Jetson's clocks, temperature, power and power mode, by the kernel's files; it has no NVML worth the name."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from edgeformer.latency.kernel_files import number_of, text_of

__all__ = ["TegraSensors", "power_mode"]

_STATUS = Path("var/lib/nvpmodel/status")
_MODES = Path("etc/nvpmodel.conf")
# Rails of the INA3221, that of the whole module first; the names differ between the modules.
_RAILS = ("VDD_IN", "VIN_SYS_5V0", "VDD_GPU_SOC")


class TegraSensors:
    """A Jetson's GPU and its power monitor."""

    polled = True

    def __init__(
        self,
        clock: Path | None,
        temperature: Path | None,
        rail: tuple[Path, Path, str] | None,
        alarms: list[Path],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over files; `find` is what finds them.

        Args:
            clock: of the GPU's clock in Hz.
            temperature: of its temperature in thousandths of a degree.
            rail: of the voltage in mV and the current in mA of one rail, and the rail's name.
            alarms: counters of over-current events.
            now: seconds.
        """
        self._clock, self._temperature, self._rail, self._alarms, self._now = clock, temperature, rail, alarms, now
        self.energy_source = f"INA3221, rail {rail[2]}" if rail is not None else ""
        self._joules = 0.0
        self._last: tuple[float, float] | None = None
        self._counted = self._count()

    @classmethod
    def find(cls, root: Path = Path("/"), now: Callable[[], float] = time.monotonic) -> TegraSensors | None:
        """The sensors of the Jetson that this is; None where it is none.

        Args:
            root: of the file system.
            now: seconds.
        """
        if not (root / "etc/nv_tegra_release").exists() and not _is_tegra(root):
            return None
        clocks = [path / "cur_freq" for path in sorted((root / "sys/class/devfreq").glob("*")) if _is_gpu(path.name)]
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        gpu_zones = [zone / "temp" for zone in zones if "gpu" in text_of(zone / "type").lower()]
        alarms = sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
        rail = _rail(root)
        return cls(clocks[0] if clocks else None, gpu_zones[0] if gpu_zones else None, rail, alarms, now)

    def clock_mhz(self) -> float | None:
        """Of the GPU."""
        number = number_of(self._clock)
        return None if number is None else number / 1e6

    def temperature_c(self) -> float | None:
        """Of the GPU."""
        number = number_of(self._temperature)
        return None if number is None else number / 1e3

    def throttled(self) -> tuple[str, ...]:
        """Over-current since the last time it was asked: the module halves its clocks then."""
        before, self._counted = self._counted, self._count()
        return ("over-current",) if self._counted > before else ()

    def joules(self) -> float | None:
        """The power of the moments at which it was asked, over time."""
        if self._rail is None:
            return None
        voltage, current = number_of(self._rail[0]), number_of(self._rail[1])
        if voltage is None or current is None:
            return None
        moment, watts = self._now(), voltage * current / 1e6
        if self._last is not None:
            self._joules += (moment - self._last[0]) * (watts + self._last[1]) / 2
        self._last = (moment, watts)
        return self._joules

    def _count(self) -> float:
        return sum(number_of(path) or 0 for path in self._alarms)


def power_mode(root: Path = Path("/")) -> str | None:
    """The power mode that a Jetson is in, such as "MAXN"; its number where that has no name; None elsewhere.

    Args:
        root: of the file system.
    """
    found = re.search(r"pmode:\s*0*(\d+)", text_of(root / _STATUS))
    if found is None:
        return None
    named = re.search(rf"<\s*POWER_MODEL\s+ID={found[1]}\s+NAME=(\S+?)\s*>", text_of(root / _MODES))
    return named[1] if named is not None else found[1]


def _is_tegra(root: Path) -> bool:
    return "tegra" in text_of(root / "proc/device-tree/compatible")


def _is_gpu(name: str) -> bool:
    return name.endswith((".gpu", ".ga10b", ".gv11b", ".gp10b")) or name.startswith("gpu-gpc")


def _rail(root: Path) -> tuple[Path, Path, str] | None:
    for name in _RAILS:
        for label in sorted((root / "sys/class/hwmon").glob("hwmon*/in*_label")):
            if text_of(label) == name:
                number = label.name.removeprefix("in").removesuffix("_label")
                return label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"), name
    return None
