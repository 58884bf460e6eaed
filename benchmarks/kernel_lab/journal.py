"""What a run has done and is about to do, on disk, so that another process can watch it and go on behind it."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kernel_lab.backend import Backend
from benchmarks.kernel_lab.budget import Budget
from benchmarks.kernel_lab.records import Phase, Report, save_report

__all__ = ["BROKEN_DEVICE", "RESERVE", "Journal", "Units", "load_journal"]

BROKEN_DEVICE = 75
"""Exit code of a process whose CUDA context an error has spoilt: what is left needs a new process."""
RESERVE = 20.0
"""Seconds kept for writing and rendering, and for one measurement that is under way."""
# Beyond the end of the budget, for what was begun just before it.
_OVERTIME = 10.0
_SAVE_EVERY = 3.0


@dataclass
class Journal:
    """The state of a run.

    Attributes:
        path: where it is kept; None: nowhere, nobody watches.
        options: what the run is to do, for the process that does it.
        started: the run's begin, on the monotonic clock, which all processes share.
        report: what was found up to now; None until there is a library.
        report_path: where the report is written.
        library: that the kernels come from; None until it is known.
        plugin: the same, if TensorRT's plugin is in it.
        ended: names of the steps that have ended.
        done: labels of the units that have ended, or are not to be tried again.
        phase: the step that is under way.
        unit: what is under way in it.
        until: when that should have ended, on the monotonic clock.
        since: up to when the step's seconds are counted, on the monotonic clock.
    """

    path: Path | None = None
    options: Any = None
    started: float = field(default_factory=time.monotonic)
    report: Report | None = None
    report_path: Path | None = None
    library: Path | None = None
    plugin: Path | None = None
    ended: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    phase: str = "build"
    unit: str = "build"
    until: float = math.inf
    since: float = field(default_factory=time.monotonic)

    def save(self) -> None:
        """Write it in one rename."""
        if self.path is not None:
            part = self.path.with_suffix(".part")
            part.write_bytes(pickle.dumps(self))
            os.replace(part, self.path)

    def keep_report(self) -> None:
        """Write the report, too."""
        if self.report is not None and self.report_path is not None:
            save_report(self.report, self.report_path)

    def give_up(self, reason: str) -> None:
        """What is under way has failed and is not to be tried again."""
        self.done.add(f"{self.phase}: {self.unit}")
        if self.report is not None:
            for phase in self.report.phases:
                if phase.name == self.phase:
                    now = time.monotonic()
                    phase.seconds, self.since = phase.seconds + now - self.since, now
                    phase.fail(f"{self.unit}: {reason}" if self.unit != self.phase else reason)
        self.keep_report()
        self.save()


def load_journal(path: Path) -> Journal:
    """The journal that a process of this run has written."""
    found: Journal = pickle.loads(path.read_bytes())
    return found


class Units:
    """Takes the units of a step one by one, within the budget; a failure costs its unit alone."""

    def __init__(self, journal: Journal, budget: Budget, where: Backend) -> None:
        self.journal, self.budget, self._where = journal, budget, where
        self._saved = -math.inf

    def take(
        self, phase: Phase, label: str, seconds: float, action: Callable[[], object], reserve: float = RESERVE
    ) -> None:
        """Call ``action``, unless it was before or there is no time for it.

        Args:
            phase: the step; takes failures and what was dropped.
            label: of the unit.
            seconds: after which it hangs.
            action: the unit.
            reserve: seconds of the budget that are not for it.
        """
        journal, key = self.journal, f"{phase.name}: {label}"
        if key in journal.done:
            return
        if self.budget.left < reserve:
            phase.dropped.append(label)
            return
        journal.phase, journal.unit = phase.name, label
        journal.until = time.monotonic() + min(seconds, max(self.budget.left, 0.0) + _OVERTIME)
        journal.save()
        try:
            action()
        except Exception as error:  # a baseline that does not compile or fit costs its figure alone
            text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            print(f"{key}: {text}", flush=True)
            self._require_device(text)
            phase.fail(f"{label}: {text}" if label != phase.name else text)
            self._where.free()
        journal.done.add(key)
        if self.budget.spent - self._saved > _SAVE_EVERY:
            journal.keep_report()
            self._saved = self.budget.spent

    def _require_device(self, reason: str) -> None:
        try:
            self._where.synchronize()
        except Exception:
            # A fault in a kernel stays with the process: everything that follows in it would fail with the same words.
            self.journal.give_up(reason)
            if self.journal.path is not None:
                raise SystemExit(BROKEN_DEVICE) from None
            raise
