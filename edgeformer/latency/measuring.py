"""From runs in turns to figures and verdicts: `measure` for one model, `compare` for several."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from edgeformer.inference import Model
from edgeformer.latency.cuda import Cuda
from edgeformer.latency.load import LoadMeter
from edgeformer.latency.machine import CpuSensors, Sensors, StateMeter, sensors_for
from edgeformer.latency.runners import DeviceRunner, HostRunner, Runner, Times
from edgeformer.latency.sampling import Run, Series, Turn, sample
from edgeformer.latency.statistics import (
    Interval,
    Round,
    distribution,
    ratio_of_medians,
    ratio_of_p99,
    samples_needed,
)
from edgeformer.latency.verdict import CLOCKS_AGREE, FEWEST_ROUNDS, Judged, judge, limit_of
from edgeformer.progress import Progress
from edgeformer.records.latency import (
    LatencyComparison,
    LatencyFigures,
    LoadFigures,
    StateFigures,
    Statistic,
    Timing,
)

__all__ = ["Measured", "Subject", "compare", "measure"]

_NO_GPU = "ONNX Runtime runs it on the CPU"
# More of the rounds than this may not be disturbed by other processes.
_MOST_DISTURBED = 1 / 3


@dataclass(frozen=True)
class Subject:
    """What is timed, and what is known of it. The fields are those of `LatencyFigures`.

    Attributes:
        runner: runs it.
        sensors: of the device that runs it.
    """

    name: str
    runner: Runner
    batch: int
    kind: Literal["model", "baseline", "control"] = "model"
    precision: str = ""
    backend: str = ""
    backend_version: str = ""
    device: str = "CPU"
    cuda_graphs: bool = False
    gpu_note: str = _NO_GPU
    host_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    notes: tuple[str, ...] = ()
    sensors: Sensors = field(default_factory=CpuSensors)


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Attributes:
        figures: of each subject, in their order.
        comparisons: of each pair without the control.
        load: what other processes took.
        traces: every timed run of each subject, in the order of time.
    """

    figures: tuple[LatencyFigures, ...]
    comparisons: tuple[LatencyComparison, ...]
    load: LoadFigures
    traces: tuple[tuple[Times, ...], ...]


def measure(
    model: Model,
    batch: int,
    *,
    seconds: float = 10.0,
    name: str | None = None,
    runner: Runner | None = None,
    sensors: Sensors | None = None,
    progress: Progress | None = None,
) -> LatencyFigures:
    """How long one model takes.

    Args:
        model: loaded.
        batch: images a run.
        seconds: of timed runs; p99 needs 662 of them.
        name: the model's in the figures; None takes its own.
        runner: runs it; None makes one: on TensorRT with arrays on the device, which tells the GPU's time, too, on
            ONNX Runtime with NumPy arrays.
        sensors: of the device that runs it; None finds them.
        progress: called after each round.

    Returns:
        The figures; a percentile that has too few samples is None.

    Raises:
        InputError: the model has another batch, or does not run.
        EnvironmentFault: the GPU fails.
    """
    found = model.describe()
    with ExitStack() as stack:
        bus_id = None
        if runner is None and found.device is not None:
            cuda = stack.enter_context(Cuda(found.device))
            runner, bus_id = DeviceRunner(model, batch, cuda), cuda.bus_id
            stack.callback(runner.close)
        subject = Subject(
            name=name or found.name,
            runner=runner or HostRunner(model, batch),
            batch=batch,
            precision=found.precision,
            backend=found.backend,
            backend_version=found.backend_version,
            device="CPU" if found.device is None else f"GPU {found.device}",
            sensors=sensors or sensors_for(bus_id)[0],
        )
        return compare([subject], seconds=seconds, progress=progress).figures[0]


def compare(
    subjects: Sequence[Subject],
    *,
    seconds: float = 10.0,
    load: LoadMeter | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> Measured:
    """Time several models in turns, and judge each pair of them.

    Args:
        subjects: the models. Where there are two or more, one of kind "control" has to be among them, the first one
            loaded once more: how far it is from the first is the run's own noise.
        seconds: of timed runs, for each.
        load: tells what other processes take.
        clock: seconds.
        progress: called after each round.

    Raises:
        ValueError: there is no subject, or no control where one is needed.
        InputError: a model does not run.
        EnvironmentFault: the GPU fails.
    """
    judged = [index for index, one in enumerate(subjects) if one.kind != "control"]
    control = next((index for index, one in enumerate(subjects) if one.kind == "control"), None)
    if not judged or (len(judged) > 1 and control is None):
        raise ValueError("compare needs a subject, and of several a control")
    meters = [StateMeter(one.sensors) for one in subjects]
    turns = [Turn(one.runner, one.batch, meter) for one, meter in zip(subjects, meters, strict=True)]
    run = sample(turns, seconds, load=load, clock=clock, progress=progress)
    figures = tuple(
        _figures(subject, series, meter.figures())
        for subject, series, meter in zip(subjects, run.series, meters, strict=True)
    )
    comparisons = []
    if control is not None:
        for timing in ("end_to_end", "gpu"):
            judge_pair = _Judge(run, figures, timing, judged[0], control)
            for first, second in combinations(judged, 2):
                comparisons += judge_pair.compare(second, first)
    traces = tuple(tuple(one for block in series.blocks for one in block) for series in run.series)
    return Measured(figures, tuple(comparisons), run.load, traces)


def _figures(subject: Subject, series: Series, state: StateFigures) -> LatencyFigures:
    end_to_end, gpu = series.seconds("end_to_end"), series.seconds("gpu")
    assert end_to_end is not None
    whole = distribution(end_to_end)
    notes = subject.notes
    if not series.warm_up.settled:
        warm = series.warm_up
        drift = f"the last of {warm.runs} runs in {warm.seconds:.1f} s drifted by {100 * warm.drift:.1f} %"
        notes += (f"the warm-up did not settle: {drift}",)
    fields = (
        *("name", "kind", "precision", "backend", "backend_version", "device", "batch", "cuda_graphs"),
        *("host_memory_bytes", "device_memory_bytes"),
    )
    return LatencyFigures(
        **{name: getattr(subject, name) for name in fields},
        graph_state=subject.runner.graph_state,
        end_to_end=whole,
        gpu=None if gpu is None else distribution(gpu),
        gpu_note=subject.gpu_note if gpu is None else "",
        images_per_second=float(f"{1e3 * subject.batch / whole.mean_ms:.6g}"),
        warm_up=series.warm_up,
        state=state,
        notes=notes,
    )


class _Judge:
    """Judges pairs of subjects by one kind of times."""

    def __init__(
        self, run: Run, figures: Sequence[LatencyFigures], timing: Timing, reference: int, control: int
    ) -> None:
        self._run = run
        self._figures = figures
        self._timing: Timing = timing
        self._reference = reference
        self._control = control
        quiet = [index for index, disturbed in enumerate(run.disturbed) if not disturbed]
        # Where they are too few, nothing is decided, and the figures are of all.
        self._enough = len(quiet) >= max(FEWEST_ROUNDS, (1 - _MOST_DISTURBED) * len(run.disturbed))
        self._kept = quiet if self._enough else list(range(len(run.disturbed)))

    def compare(self, candidate: int, reference: int) -> list[LatencyComparison]:
        """By the median and by p99; nothing where one of the two has no such times."""
        if any(self._figures[index].times(self._timing) is None for index in (candidate, reference, self._control)):
            return []
        return [self._judged(candidate, reference, statistic) for statistic in ("median", "p99")]

    def _judged(self, candidate: int, reference: int, statistic: Statistic) -> LatencyComparison:
        found = self._interval(candidate, reference, statistic)
        noise = self._interval(self._control, self._reference, statistic)
        reason = self._reason_against(candidate, reference, statistic)
        verdict = Judged("not decided", reason)
        if not reason and found is not None and noise is not None:
            verdict = judge(found, noise)
        one, other = self._figures[candidate], self._figures[reference]
        return LatencyComparison(
            name=one.name,
            reference=other.name,
            batch=one.batch,
            cuda_graphs=one.cuda_graphs,
            timing=self._timing,
            statistic=statistic,
            ratio=None if found is None else round(found.ratio, 6),
            low=None if found is None else round(found.low, 6),
            high=None if found is None else round(found.high, 6),
            noise=None if noise is None else round(noise.furthest, 6),
            limit=round(limit_of(noise), 6),
            rounds=len(self._kept),
            verdict=verdict.verdict,
            reason=verdict.reason,
        )

    def _interval(self, candidate: int, reference: int, statistic: Statistic) -> Interval | None:
        if len(self._kept) < 2:
            return None
        sides = [self._run.series[index].seconds(self._timing) for index in (candidate, reference)]
        if sides[0] is None or sides[1] is None:
            return None
        rounds = [
            Round(tuple(sides[0][2 * index : 2 * index + 2]), tuple(sides[1][2 * index : 2 * index + 2]))
            for index in self._kept
        ]
        if statistic == "median":
            return ratio_of_medians(rounds)
        needs = samples_needed(99)
        if any(sum(len(times) for times in side) < needs for side in sides if side is not None):
            return None
        return ratio_of_p99(rounds)

    def _reason_against(self, candidate: int, reference: int, statistic: Statistic) -> str:
        """Why nothing can be decided, whatever the figures are; empty where it can."""
        load, rounds = self._run.load, len(self._run.disturbed)
        if rounds < FEWEST_ROUNDS:
            return f"{rounds} rounds of blocks are too few, it takes {FEWEST_ROUNDS}: measure longer (--seconds)"
        if not self._enough:
            return (
                f"other processes kept {load.cores:.2f} of {load.of_cores} processors busy, and disturbed "
                f"{load.disturbed} of {load.rounds} rounds (limit: {load.limit_cores:.2f}): stop them, measure again"
            )
        both = [self._figures[index] for index in (candidate, reference)]
        for one in both:
            if one.state.throttled:
                return f"the clocks were slowed down while {one.name} ran: {', '.join(one.state.throttled)}"
        clocks = [one.state.clock_mhz.mean for one in both if one.state.clock_mhz is not None]
        if len(clocks) == 2 and max(clocks) > (1 + CLOCKS_AGREE) * min(clocks):
            return (
                f"the clocks were not the same: {clocks[0]:.0f} MHz for {both[0].name}, {clocks[1]:.0f} MHz for "
                f"{both[1].name}: fix them, or let the machine warm up"
            )
        if statistic == "p99":
            samples = min(found.samples for one in both if (found := one.times(self._timing)) is not None)
            if samples < samples_needed(99):
                longer = int(np.ceil(samples_needed(99) / samples))
                return (
                    f"p99 needs {samples_needed(99)} samples, and there are {samples}: measure {longer} times as long "
                    "(--seconds)"
                )
        return ""
