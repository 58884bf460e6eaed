"""The steps of a run, in order, within a time budget; whatever happens, what was found up to then is on disk."""

from __future__ import annotations

import datetime
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeformer.errors import EdgeformerError, EnvironmentFault, InputError
from edgeformer.ops.library import ENVIRONMENT_VARIABLE, Library, load_library
from kernel_lab import (
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
from kernel_lab.budget import Budget
from kernel_lab.records import Phase, Report, save_report
from kernel_lab.shapes import BATCHES, TABLE, TINY, Shape

__all__ = ["PHASES", "Options", "run"]

# The benchmark is last, because it takes whatever time is left.
PHASES = ("correctness", "sanitizers", "concurrency", "ceilings", "tensorrt-rtx", "benchmark")
# Of the whole budget: what a step may take before the ones behind it would starve.
_CORRECTNESS_SHARE, _SANITIZER_SHARE = 0.25, 0.25
# Seconds kept for writing and rendering, and for one measurement that is under way.
_RESERVE = 20.0


@dataclass(frozen=True)
class Options:
    """What a run is to do.

    Attributes:
        output: folder of the JSON file and the plot.
        command: the command line, for the record.
        phases: the steps to take, of `PHASES`.
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


def run(options: Options) -> tuple[Report, Path]:
    """Take the steps.

    Returns:
        The report, and where it was written.

    Raises:
        InputError: the options do not fit together.
        EnvironmentFault: there is no GPU, or the kernels cannot be built.
    """
    _check(options)
    budget = Budget(options.budget_seconds, options.clock)
    if not options.rehearse:
        machine.require_gpu()
    where: backend.Backend = backend.RehearsalBackend() if options.rehearse else backend.CudaBackend()
    library, built, plugin = _library(options, budget)
    # The torch op, and the processes that are started, take this one as well.
    os.environ[ENVIRONMENT_VARIABLE] = str(library.path)
    report = Report(
        kind="rehearsal" if options.rehearse else "measurement",
        started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=options.command,
        budget_seconds=options.budget_seconds,
        machine=machine.describe_rehearsal(library.path) if options.rehearse else machine.describe_gpu(),
        phases=[built],
    )
    path = options.output / f"{_slug(report.machine.name)}-{report.started[:10]}.json"
    steps = _Steps(report, path, budget, where, library, plugin, options)
    for name, step in steps.all():
        if name in options.phases:
            with _phase(name, report, path, budget) as phase:
                step(phase)
    if report.timings:
        try:
            render.plot(report, path.with_suffix(".svg"))
        except ImportError as error:
            print(f"no plot: {error}; scripts/bench_kernels --render draws it where matplotlib is", file=sys.stderr)
    return report, path


def _check(options: Options) -> None:
    unknown = [name for name in options.phases if name not in PHASES]
    if unknown:
        raise InputError(f"no step is called {', '.join(unknown)}; there are: {', '.join(PHASES)}")
    table = TINY if options.rehearse else TABLE
    strange = [name for name in options.shapes if name not in {shape.name for shape in table}]
    if strange:
        names = ", ".join(repr(shape.name) for shape in table)
        raise InputError(f"no shape is called {', '.join(map(repr, strange))}; there are: {names}")
    if options.rehearse and options.output.resolve().is_relative_to(render.MEASUREMENTS.resolve()):
        raise InputError(
            f"a rehearsal's times are made up: it does not go into {render.MEASUREMENTS}; choose another --output"
        )
    if options.budget_seconds <= 0 or not options.batches or min(options.batches) < 1:
        raise InputError("the budget and every batch must be at least 1")


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
                "a rehearsal runs the kernels on the CPU, and the library that does is not built: "
                "cmake --preset default && cmake --build --preset default"
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
            f"{library.path} runs the kernels on {'a GPU' if library.takes_device_memory else 'the CPU'}: "
            + ("a rehearsal needs the one that runs them on the CPU" if options.rehearse else "for --rehearse only")
        )
    return library, Phase("build", "passed", budget.spent - start, note), plugin


@contextmanager
def _phase(name: str, report: Report, path: Path, budget: Budget) -> Iterator[Phase]:
    """Time a step, keep its failure, write the report."""
    phase = Phase(name, "passed", 0.0)
    report.phases.append(phase)
    start = budget.spent
    print(f"{name} ... ({budget.left:.0f} s left)", flush=True)
    try:
        yield phase
    except Exception as error:
        phase.status = "failed"
        phase.note = f"{type(error).__name__}: {error}" if not isinstance(error, EdgeformerError) else str(error)
        traceback.print_exc()
    finally:
        phase.seconds = budget.spent - start
        save_report(report, path)
        print(f"{name}: {phase.status} {phase.note} ({phase.seconds:.1f} s)", flush=True)


@dataclass
class _Steps:
    report: Report
    path: Path
    budget: Budget
    where: backend.Backend
    library: Library
    plugin: Path | None
    options: Options

    @property
    def shapes(self) -> tuple[Shape, ...]:
        table = TINY if self.options.rehearse else TABLE
        return tuple(shape for shape in table if not self.options.shapes or shape.name in self.options.shapes)

    def all(self) -> Iterator[tuple[str, Callable[[Phase], None]]]:
        yield "correctness", self.correctness
        yield "sanitizers", self.sanitizers
        yield "concurrency", self.concurrency
        yield "ceilings", self.ceilings
        yield "tensorrt-rtx", self.tensorrt_rtx
        yield "benchmark", self.benchmark

    def correctness(self, phase: Phase) -> None:
        end = self.budget.left - _CORRECTNESS_SHARE * self.budget.seconds
        problems = correctness.awkward_problems()
        if self.options.rehearse:
            problems = problems[:2]
        for problem in (*problems, *correctness.table_problems(self.shapes)):
            if self.budget.left < max(end, _RESERVE):
                phase.dropped.append(problem.name)
                continue
            self.report.cases += correctness.check(problem, self.where, self.library)
        wrong = [case for case in self.report.cases if case.fault]
        phase.note = f"{len(self.report.cases)} cases"
        if wrong:
            phase.status = "failed"
            phase.note += f", {len(wrong)} wrong, first: {wrong[0].name} {wrong[0].input_type} {wrong[0].variant}: "
            phase.note += wrong[0].fault

    def sanitizers(self, phase: Phase) -> None:
        tool = None if self.options.rehearse else sanitizers.find_sanitizer()
        if tool is None:
            phase.status = "skipped"
            phase.note = "compute-sanitizer needs a GPU" if self.options.rehearse else "compute-sanitizer not found"
            return
        seconds = min(_SANITIZER_SHARE * self.budget.seconds, self.budget.left - _RESERVE)
        findings = sanitizers.run_tools(self.library.path, seconds, tool)
        faults = [f"{name}: {finding.fault}" for name, finding in findings.items() if finding.fault]
        phase.dropped += [f"{name} {problem}" for name, finding in findings.items() for problem in finding.dropped]
        phase.note = "; ".join(faults) if faults else f"{', '.join(findings)}: nothing found"
        if faults:
            phase.status = "failed"

    def concurrency(self, phase: Phase) -> None:
        faults = list(concurrency.check(self.shapes, self.where, self.library, self.report.machine))
        if faults:
            phase.status, phase.note = "failed", "; ".join(faults)

    def ceilings(self, phase: Phase) -> None:
        ceilings = benchmark.measure_ceilings(self.where, self.report.machine)
        self.report.ceilings = ceilings
        phase.note = (
            f"copy {ceilings.copy_bytes_per_second / 1e9:.0f} GB/s, {ceilings.fp16_flops / 1e12:.0f} TFLOP/s FP16"
        )

    def tensorrt_rtx(self, phase: Phase) -> None:
        if self.options.rehearse:
            phase.status, phase.note = "skipped", "needs a GPU"
            return
        steps = tensorrt_rtx.ask(self.options.wheel_parts, self.plugin, min(60.0, self.budget.left - _RESERVE))
        self.report.tensorrt_rtx = steps
        phase.note = steps[-1] if steps else "no answer"

    def benchmark(self, phase: Phase) -> None:
        measurements = benchmark.plan_measurements(
            self.shapes,
            self.options.batches,
            self.where,
            self.library,
            self.report.machine,
            with_baselines=self.options.with_baselines,
        )
        for timing in benchmark.measure(measurements, self.budget, _RESERVE, phase):
            self.report.timings.append(timing)
            if len(self.report.timings) % 20 == 0:
                save_report(self.report, self.path)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def summary(report: Report, path: Path) -> str:
    """The last lines: how it went and where it is."""
    counts: Sequence[str] = [f"{phase.name} {phase.status}" for phase in report.phases]
    return f"{report.kind}: {', '.join(counts)}\n{path}"
