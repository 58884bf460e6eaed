"""`edgeformer` on a machine without a GPU as if it had one, for what can be tried of ``finish --autotune`` there.

    python -m benchmarks.pretended_gpu finish BUNDLE --autotune --trust-bundle

A GPU that is the bundle's is found. Engines are built for real where TensorRT-RTX does that without one. What they
answer is what the bundle has recorded, and what they take is planted: **nothing of that is measured**.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.bundle.files import PARITY
from edgeformer.errors import EdgeformerError
from edgeformer.latency import CallRunner, Subject, advise, compare
from edgeformer.latency import bench as bench_module
from edgeformer.latency.bench import Benched, Candidate, Settings
from edgeformer.latency.load import LoadMeter
from edgeformer.latency.machine import describe_machine
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.progress import Progress
from edgeformer.records.latency import LatencyReport

__all__ = ["PretendedGpu", "main"]


@dataclass
class PretendedGpu:
    """What engines do on it, by the candidate's name as it stands in the engine's file.

    Attributes:
        milliseconds: that a run takes; others take 1.
        factors: that the recorded outputs are multiplied by; others give them as they are.
        faults: raised when one is run.
        noise: standard deviation of a run's time, as a fraction.
        timing_fault: raised when any is timed.
        timed: the names that were timed together, time by time.
    """

    milliseconds: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    faults: Mapping[str, EdgeformerError] = field(default_factory=dict)
    noise: float = 0.005
    timing_fault: EdgeformerError | None = None
    timed: list[list[str]] = field(default_factory=list)

    @contextmanager
    def load(self, engine: Path, plan: Any) -> Iterator[_Answers]:
        """In the place of `edgeformer.pipeline.stages.device._loaded`."""
        name = engine.stem.removeprefix("autotune-")
        if name in self.faults:
            raise self.faults[name]
        yield _Answers(engine.with_name(PARITY), self.factors.get(name, 1.0))

    def bench(
        self, candidates: Sequence[Candidate], settings: Settings, *, progress: Progress | None = None
    ) -> Benched:
        """In the place of `edgeformer.latency.bench.bench`: planted times, and the verdicts of the real one."""
        self.timed.append([one.name for one in candidates])
        if self.timing_fault is not None:
            raise self.timing_fault
        assert all(one.path.is_file() for one in candidates)
        clock = _Clock()
        first = candidates[0]
        control = [Candidate(f"{first.name}, loaded again", first.path)] if len(candidates) > 1 else []
        subjects = [
            Subject(
                name=one.name,
                runner=CallRunner(self._run(clock, one.name.partition(",")[0]), clock),
                batch=1,
                kind="control" if one in control else "model",
                precision=one.precision,
                backend="tensorrt",
                backend_version="pretended",
                device="a pretended GPU",
                gpu_note="the GPU is pretended",
            )
            for one in [*candidates, *control]
        ]
        load = LoadMeter(clock=clock, busy=lambda: None, own=lambda: 0.0)
        measured = compare(subjects, seconds=settings.seconds, load=load, clock=clock, progress=progress)
        names = [one.name for one in candidates]
        medians = [one for one in measured.comparisons if (one.timing, one.statistic) == ("end_to_end", "median")]
        report = LatencyReport(
            measured="1970-01-01T00:00:00+00:00",
            machine=describe_machine({}, "a pretended GPU", None),
            figures=measured.figures,
            comparisons=measured.comparisons,
            load=measured.load,
            advice=advise(names, [one.precision for one in candidates], medians, 1) if len(names) > 1 else None,
        )
        return Benched(report, measured.traces)

    def _run(self, clock: _Clock, name: str) -> Any:
        seconds = self.milliseconds.get(name, 1.0) / 1e3

        def run() -> None:
            clock.now += seconds * float(np.exp(clock.random.normal(0.0, self.noise)))

        return run


class _Clock:
    """Time that passes where a run takes it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.random = np.random.default_rng(0)

    def __call__(self) -> float:
        return self.now


class _Answers:
    """Gives the outputs that were recorded for each input, multiplied."""

    def __init__(self, archive: Path, factor: float) -> None:
        with np.load(archive) as recorded:
            arrays = {name: recorded[name] for name in recorded.files}
        self._inputs = {name[6:]: array for name, array in arrays.items() if name.startswith("input:")}
        self._outputs = {
            name[7:]: array * np.asarray(factor, array.dtype)
            for name, array in arrays.items()
            if name.startswith("output:")
        }

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs."""
        (name, given), *_ = feeds.items()
        known = self._inputs[name]
        rows = [int(np.argmin(np.abs(known - one).reshape(len(known), -1).sum(axis=1))) for one in given]
        return {name: array[rows] for name, array in self._outputs.items()}


def main() -> None:
    """Run the command line so."""
    from edgeformer.cli import cli
    from edgeformer.pipeline import device_plan
    from edgeformer.pipeline.stages import device

    pretended = PretendedGpu(milliseconds={"fp16": 1.5})
    survey = GpuSurvey((Gpu(0, "a pretended GPU", 89, 24_000_000_000),), "0", "12.0", "")
    for module, name, value in (
        (device_plan, "find_gpus", lambda: survey),
        (device, "_loaded", pretended.load),
        (bench_module, "bench", pretended.bench),
    ):
        setattr(module, name, value)
    cli.main()


if __name__ == "__main__":
    main()
