"""The steps of a run, in order, within a time budget; whatever happens, what was found up to then is on disk."""

from __future__ import annotations

import datetime
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kernel_lab import (
    backend,
    benchmark,
    build,
    concurrency,
    correctness,
    machine,
    render,
    sanitizers,
    tensorrt_rtx,
)
from benchmarks.kernel_lab.budget import Budget
from benchmarks.kernel_lab.journal import RESERVE, Journal, Units, load_journal
from benchmarks.kernel_lab.records import Phase, Report
from benchmarks.kernel_lab.shapes import BATCHES, TABLE, TINY, Shape
from edgeformer.errors import EdgeformerError, EnvironmentFault, InputError
from edgeformer.ops.library import Library, load_library
from edgeformer.ops.library_files import ENVIRONMENT_VARIABLE

__all__ = ["PHASES", "Options", "check_options", "main", "run", "summary"]

# Most telling first: whether the kernels are right, then the figures that goals are set for. The benchmark of all else
# is last, because it takes whatever time is left.
PHASES = ("correctness", "ceilings", "goals", "concurrency", "tensorrt-rtx", "sanitizers", "benchmark")
# How much of the whole budget may be spent when a step begins its last unit: the steps behind it would starve.
_SPENT = {"correctness": 0.35, "goals": 0.7}
_SANITIZER_SHARE = 0.2
# Seconds after which a unit of a step hangs. A first torch.compile is the longest.
_PROBLEM, _MEASUREMENT, _STEP, _TENSORRT = 60.0, 120.0, 120.0, 150.0


@dataclass(frozen=True)
class Options:
    """What a run is to do.

    Attributes:
        output: folder of the JSON file and the plot.
        command: the command line, for the record.
        phases: the steps to take, of `PHASES`, and in that order.
        budget_seconds: for all of it.
        rehearse: on the CPU, with made-up times.
        library: a compiled library; None: build one.
        build_route: "auto", "cmake" or "nvcc".
        shapes: names of shapes to measure; empty: all.
        batches: to measure.
        with_baselines: measure them, too.
        wheel_parts: of a TensorRT-RTX wheel.
        clock: gives seconds.
    """

    output: Path
    command: str
    phases: tuple[str, ...] = PHASES
    budget_seconds: float = 540.0
    rehearse: bool = False
    library: Path | None = None
    build_route: str = "auto"
    shapes: tuple[str, ...] = ()
    batches: tuple[int, ...] = BATCHES
    with_baselines: bool = True
    wheel_parts: tuple[Path, ...] = ()
    clock: Callable[[], float] = field(default=time.monotonic)


def run(options: Options, journal: Journal | None = None) -> tuple[Report, Path]:
    """Take the steps, or those that ``journal`` has left.

    Returns:
        The report, and where it was written.

    Raises:
        InputError: the options do not fit together.
        EnvironmentFault: there is no GPU, or the kernels cannot be built.
    """
    check_options(options)
    journal = journal or Journal(started=options.clock())
    budget = Budget(options.budget_seconds, options.clock, journal.started)
    if not options.rehearse:
        machine.require_gpu()
    where: backend.Backend = backend.RehearsalBackend() if options.rehearse else backend.CudaBackend()
    if journal.report is None or journal.report_path is None or journal.library is None:
        library, built, journal.plugin = _library(options, budget)
        journal.library = library.path
        journal.report = _begin(options, library, built)
        started = re.sub(r"\D", "", journal.report.started[:16])
        journal.report_path = options.output / f"{_slug(journal.report.machine.name)}-{started}.json"
    library = load_library(journal.library)
    # The torch op, and the processes that are started, take this one as well.
    os.environ[ENVIRONMENT_VARIABLE] = str(library.path)
    steps = _Steps(journal.report, where, library, journal.plugin, options, Units(journal, budget, where))
    for name, step in steps.all():
        if name in options.phases and name not in journal.ended:
            with _phase(name, journal, budget) as phase:
                step(phase)
    return journal.report, journal.report_path


def _begin(options: Options, library: Library, built: Phase) -> Report:
    return Report(
        kind="rehearsal" if options.rehearse else "measurement",
        started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=options.command,
        budget_seconds=options.budget_seconds,
        machine=machine.describe_rehearsal(library.path) if options.rehearse else machine.describe_gpu(),
        phases=[built],
    )


def main(journal_path: Path) -> int:
    """The process that takes the steps; `benchmarks.kernel_lab.supervisor` starts and watches it."""
    journal = load_journal(journal_path)
    try:
        run(journal.options, journal)
    except EdgeformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check_options(options: Options) -> None:
    """Raises InputError where they do not fit together."""
    unknown = [name for name in options.phases if name not in PHASES]
    if unknown:
        raise InputError("EF101", f"no step is called {', '.join(unknown)}; there are: {', '.join(PHASES)}")
    table = TINY if options.rehearse else TABLE
    strange = [name for name in options.shapes if name not in {shape.name for shape in table}]
    if strange:
        names = ", ".join(repr(shape.name) for shape in table)
        raise InputError("EF101", f"no shape is called {', '.join(map(repr, strange))}; there are: {names}")
    if options.rehearse and options.output.resolve().is_relative_to(render.MEASUREMENTS.resolve()):
        raise InputError(
            "EF104",
            f"a rehearsal's times are made up: it does not go into {render.MEASUREMENTS}; choose another --output",
        )
    if options.budget_seconds <= 0 or not options.batches or min(options.batches) < 1:
        raise InputError("EF101", "the budget and every batch must be at least 1")


def _library(options: Options, budget: Budget) -> tuple[Library, Phase, Path | None]:
    """The library, the step that made it, and its path once more if the TensorRT plugin is in it."""
    start = budget.spent
    if options.library is not None:
        plugin = options.library.absolute()
        library, note = load_library(plugin), f"given: {plugin.name}"
    elif options.rehearse:
        found = sorted((build.ROOT / "build").glob("*/plugins/tests/libedgeformer_emulated_kernels.so"))
        if not found:
            raise EnvironmentFault(
                "EF610",
                "a rehearsal runs the kernels on the CPU, and the library that does is not built: "
                "cmake --preset default && cmake --build --preset default",
            )
        newest = max(found, key=lambda path: path.stat().st_mtime)
        library, note, plugin = load_library(newest), "kernels that run on the CPU", None
    else:
        import torch

        major, minor = torch.cuda.get_device_capability()
        path, route = build.build_library(major * 10 + minor, route=options.build_route)
        library, note = load_library(path), f"built with {route} for SM {major}.{minor}"
        plugin = path if route == "cmake" else None
    if library.takes_device_memory == options.rehearse:
        raise InputError(
            "EF104",
            f"{library.path} runs the kernels on {'a GPU' if library.takes_device_memory else 'the CPU'}: "
            + ("a rehearsal needs the one that runs them on the CPU" if options.rehearse else "for --rehearse only"),
        )
    return library, Phase("build", "passed", budget.spent - start, note), plugin


@contextmanager
def _phase(name: str, journal: Journal, budget: Budget) -> Iterator[Phase]:
    """Time a step, or what an earlier process has left of it; keep its failure; write the report."""
    assert journal.report is not None
    found = [phase for phase in journal.report.phases if phase.name == name]
    phase = found[0] if found else Phase(name, "passed", 0.0)
    if not found:
        journal.report.phases.append(phase)
    start, earlier, journal.since = budget.spent, phase.seconds, time.monotonic()
    print(f"{name} ... ({budget.left:.0f} s left)", flush=True)
    try:
        yield phase
    except EdgeformerError as error:
        phase.fail(str(error))
    except Exception as error:
        phase.fail(f"{type(error).__name__}: {error}")
    finally:
        phase.seconds, journal.since = earlier + budget.spent - start, time.monotonic()
        journal.keep_report()
        journal.save()
    journal.ended.add(name)
    journal.save()
    print(f"{name}: {phase.status} {phase.note} ({phase.seconds:.1f} s)", flush=True)


@dataclass
class _Steps:
    report: Report
    where: backend.Backend
    library: Library
    plugin: Path | None
    options: Options
    units: Units

    @property
    def shapes(self) -> tuple[Shape, ...]:
        table = TINY if self.options.rehearse else TABLE
        return tuple(shape for shape in table if not self.options.shapes or shape.name in self.options.shapes)

    def all(self) -> Iterator[tuple[str, Callable[[Phase], None]]]:
        yield "correctness", self.correctness
        yield "ceilings", self.ceilings
        yield "goals", self.goals
        yield "concurrency", self.concurrency
        yield "tensorrt-rtx", self.tensorrt_rtx
        yield "sanitizers", self.sanitizers
        yield "benchmark", self.benchmark

    def _reserve(self, name: str) -> float:
        """What must be left of the budget for a step to go on."""
        steps_behind = name in _SPENT and name != max(self.options.phases, key=PHASES.index)
        return max((1 - _SPENT[name]) * self.options.budget_seconds, RESERVE) if steps_behind else RESERVE

    def correctness(self, phase: Phase) -> None:
        reserve = self._reserve(phase.name)
        problems = correctness.awkward_problems()
        if self.options.rehearse:
            problems = problems[:2]
        for problem in (*problems, *correctness.table_problems(self.shapes)):

            def compare(problem: correctness.Problem = problem) -> None:
                for case in correctness.check(problem, self.where, self.library):
                    self.report.cases.append(case)

            self.units.take(phase, problem.name, _PROBLEM, compare, reserve)
        wrong = [case for case in self.report.cases if case.fault]
        phase.say(f"{len(self.report.cases)} cases")
        if wrong:
            first = wrong[0]
            phase.fail(f"{len(wrong)} wrong, first: {first.name} {first.input_type} {first.variant}: {first.fault}")

    def sanitizers(self, phase: Phase) -> None:
        tool = None if self.options.rehearse else sanitizers.find_sanitizer()
        if tool is None:
            phase.status = "skipped"
            phase.say("compute-sanitizer needs a GPU" if self.options.rehearse else "compute-sanitizer not found")
            return
        budget = self.units.budget
        seconds = min(_SANITIZER_SHARE * budget.seconds, budget.left - RESERVE)

        def watch() -> None:
            self.where.free()  # three processes need memory of their own
            findings = sanitizers.run_tools(self.library.path, seconds, tool)
            phase.dropped += [f"{name} {problem}" for name, finding in findings.items() for problem in finding.dropped]
            faults = [f"{name}: {finding.fault}" for name, finding in findings.items() if finding.fault]
            for fault in faults:
                phase.fail(fault)
            if not faults:
                phase.say(f"{', '.join(findings)}: nothing found")

        self.units.take(phase, phase.name, seconds + 30.0, watch, reserve=3 * RESERVE)

    def concurrency(self, phase: Phase) -> None:
        def check() -> None:
            for fault in concurrency.check(self.shapes, self.where, self.library, self.report.machine):
                phase.fail(fault)

        self.units.take(phase, phase.name, _STEP, check)

    def ceilings(self, phase: Phase) -> None:
        def measure() -> None:
            found = self.report.ceilings = benchmark.measure_ceilings(self.where, self.report.machine)
            phase.say(f"copy {found.copy_bytes_per_second / 1e9:.0f} GB/s, {found.fp16_flops / 1e12:.0f} TFLOP/s FP16")

        self.units.take(phase, phase.name, _STEP, measure)

    def tensorrt_rtx(self, phase: Phase) -> None:
        if self.options.rehearse:
            phase.status = "skipped"
            phase.say("needs a GPU")
            return

        def ask() -> None:
            self.where.free()
            seconds = min(_TENSORRT, self.units.budget.left - RESERVE)
            answer = tensorrt_rtx.ask(self.options.wheel_parts, self.plugin, seconds)
            self.report.tensorrt_rtx = answer.steps
            phase.dropped += answer.dropped
            if answer.verdict == "wrong":
                phase.fail(answer.steps[-1])
                return
            if answer.verdict != "right":
                phase.status = "skipped"
            phase.say(answer.steps[-1] if answer.steps else "no answer")

        self.units.take(phase, phase.name, _TENSORRT + 60.0, ask, reserve=2 * RESERVE)

    def goals(self, phase: Phase) -> None:
        self._measure(phase, goals_only=True)

    def benchmark(self, phase: Phase) -> None:
        # What the step before had no time for comes first here, too.
        self._measure(phase, goals_only=False)

    def _measure(self, phase: Phase, *, goals_only: bool) -> None:
        reserve = self._reserve(phase.name)
        measurements = benchmark.plan_measurements(
            self.shapes,
            self.options.batches,
            self.where,
            self.library,
            self.report.machine,
            with_baselines=self.options.with_baselines,
        )
        done = self.units.journal.done
        for measurement in measurements:
            if (goals_only and not measurement.for_goals) or f"goals: {measurement.label}" in done:
                continue

            def measure(measurement: benchmark.Measurement = measurement) -> None:
                self.report.timings.append(measurement.run())

            self.units.take(phase, measurement.label, _MEASUREMENT, measure, reserve)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def summary(report: Report, path: Path) -> str:
    """The last lines: how it went and where it is."""
    counts: Sequence[str] = [f"{phase.name} {phase.status}" for phase in report.phases]
    return f"{report.kind}: {', '.join(counts)}\n{path}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
