"""What other processes take of the processors, by the kernel's own account."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgeformer.records.latency import LoadFigures

__all__ = ["LoadMeter", "limit_cores"]

_STAT = Path("/proc/stat")
# The kernel counts in ticks of 10 ms: over less time than this the count says little.
_WINDOW_SECONDS = 0.5
# Of all the processors, and at most as much of one.
_LIMIT_OF_ALL = 0.1
_LIMIT_CORES = 0.5


def limit_cores(cores: int) -> float:
    """How many processors others may keep busy while something is measured, of ``cores``."""
    return min(_LIMIT_CORES, _LIMIT_OF_ALL * cores)


def busy_seconds(stat: Path = _STAT) -> float | None:
    """Processor time that all processes and the hypervisor took since the machine started; None where it is not told.

    Idle time and time that was waited for a disk are not in it; time of guests is in the user's already.
    """
    try:
        words = stat.read_text(encoding="ascii", errors="replace").partition("\n")[0].split()
        user, nice, system, _, _, irq, soft_irq, steal = map(int, words[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")


@dataclass
class _Window:
    began: float
    busy: float | None
    own: float


@dataclass
class LoadMeter:
    """Tells after each round whether others disturbed it. Rounds shorter than half a second are judged together.

    Attributes:
        clock: seconds.
        busy: processor time of all processes, seconds; None where it is not known.
        own: processor time of this process, seconds.
        cores: processors that there are.
    """

    clock: Callable[[], float] = time.perf_counter
    busy: Callable[[], float | None] = busy_seconds
    own: Callable[[], float] = time.process_time
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        self._disturbed: list[bool] = []
        self._open = 0
        self._others = self._seconds = 0.0
        self._window = self._now()

    def start(self) -> None:
        """Begin to count: what came before is none of the rounds'."""
        self._window = self._now()

    def round_ended(self) -> None:
        """A round is over."""
        self._open += 1
        if self.clock() - self._window.began >= _WINDOW_SECONDS:
            self._close()

    def disturbed(self) -> list[bool]:
        """For each round whether others took too much meanwhile."""
        if self._open:
            self._close()
        return list(self._disturbed)

    def figures(self) -> LoadFigures:
        """The sum of it."""
        disturbed = self.disturbed()
        return LoadFigures(
            cores=round(self._others / self._seconds, 3) if self._seconds else 0.0,
            of_cores=self.cores,
            limit_cores=limit_cores(self.cores),
            rounds=len(disturbed),
            disturbed=sum(disturbed),
        )

    def _now(self) -> _Window:
        return _Window(self.clock(), self.busy(), self.own())

    def _close(self) -> None:
        before, self._window = self._window, self._now()
        seconds = self._window.began - before.began
        others = 0.0
        if before.busy is not None and self._window.busy is not None:
            others = max(0.0, self._window.busy - before.busy - (self._window.own - before.own))
        too_much = seconds > 0 and others / seconds > limit_cores(self.cores)
        if seconds < _WINDOW_SECONDS and self._disturbed:
            too_much = self._disturbed[-1]  # a rest at the end, too short to be judged by itself
        self._disturbed += [too_much] * self._open
        self._open = 0
        self._others += others
        self._seconds += seconds
