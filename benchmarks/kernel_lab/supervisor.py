"""A run in a process of its own, watched: what hangs there, or ends the process, costs its own figure and not the rest.

The process that watches takes no step of the run itself. It ends one that overstays the time which its journal names,
with all that it has started, writes down what was under way, and starts another behind it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from benchmarks.kernel_lab import processes
from benchmarks.kernel_lab.flow import PHASES, Options
from benchmarks.kernel_lab.journal import BROKEN_DEVICE, RESERVE, Journal, load_journal
from benchmarks.kernel_lab.records import Phase, Report
from edgeformer.errors import EnvironmentFault

__all__ = ["supervise"]

_POLL = 0.2
# A new process costs some seconds; a GPU on which nothing works should not cost the whole budget.
_PROCESSES = 8
_START = 90.0  # seconds for imports and the CUDA context
_PROGRAM = (sys.executable, "-m", "benchmarks.kernel_lab.flow")


def supervise(options: Options, program: Sequence[str] = _PROGRAM) -> tuple[Report, Path] | int:
    """Take the steps in processes of their own.

    Args:
        options: what the run is to do.
        program: takes the steps, given the journal's path.

    Returns:
        The report and where it was written; or the exit code of a process that ended before there was one, and has
        said why.

    Raises:
        EnvironmentFault: building took all the time.
    """
    with tempfile.TemporaryDirectory() as temporary, _ended_by_exceptions():
        path = Path(temporary) / "journal"
        end = time.monotonic() + options.budget_seconds
        journal = Journal(path=path, options=options, until=end)
        journal.save()
        unreached = "no time left"
        for number in range(_PROCESSES):
            code = _watch([*program, str(path)], path)
            journal = load_journal(path)
            if code == 0:
                break
            if journal.report is None:
                if code is not None and code > 0:
                    return code
                raise EnvironmentFault("EF612", f"building the kernels {_reason(code)}")
            if code != BROKEN_DEVICE:
                journal.give_up(_reason(code))
            if journal.phase == "start":
                unreached = f"starting a process for it {_reason(code)}"
            elif number == _PROCESSES - 1:
                unreached = f"{_PROCESSES} processes had been ended before it"
            else:
                unreached = "no time left"
            if end - time.monotonic() < RESERVE or number == _PROCESSES - 1:
                break
            print(f"going on behind {journal.phase}: {journal.unit}", flush=True)
            journal.phase, journal.unit, journal.until = "start", "start", min(end, time.monotonic() + _START)
            journal.save()
        assert journal.report is not None
        assert journal.report_path is not None
        reached = {phase.name for phase in journal.report.phases}
        journal.report.phases += [
            Phase(name, "skipped", 0.0, unreached) for name in PHASES if name in options.phases and name not in reached
        ]
        journal.keep_report()
    return journal.report, journal.report_path


def _watch(command: list[str], path: Path) -> int | None:
    """Run a process until it ends (its exit code) or overstays (None)."""
    # A group of its own, to be killed as one. The terminal's Ctrl-C reaches this process only, which then ends it.
    process = subprocess.Popen(command, env=processes.environment(), start_new_session=True)
    seen, until = -1, math.inf
    try:
        while True:
            try:
                return process.wait(timeout=_POLL)
            except subprocess.TimeoutExpired:
                pass
            if (stamp := path.stat().st_mtime_ns) != seen:
                seen, until = stamp, load_journal(path).until
            if time.monotonic() > until:
                return None
    finally:
        # Also where it has ended: what it started may go on.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:  # in the driver, where no signal reaches it
            print("a process that was stopped does not end", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _ended_by_exceptions() -> Iterator[None]:
    """The signals that ``timeout`` and a closed terminal send end the run as Ctrl-C does, with what it has started."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:  # nohup has them ignored
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reason(code: int | None) -> str:
    if code is None:
        return "did not end in time, and was stopped"
    if code < 0:
        return f"ended the process with {signal.Signals(-code).name}"
    return f"ended the process with exit code {code}"
