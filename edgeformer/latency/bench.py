"""Loads models, and times them in turns at each batch: what `edgeformer bench` does."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from edgeformer.inference import Model, load
from edgeformer.latency.cuda import Cuda
from edgeformer.latency.machine import Sensors, describe_machine, sensors_for
from edgeformer.latency.measuring import Measured, Subject, compare
from edgeformer.latency.runners import DeviceRunner, HostRunner, Runner, Times, arrays_for, default_batch
from edgeformer.latency.verdict import advise
from edgeformer.machine.devices import GpuSurvey, find_gpus
from edgeformer.progress import Progress
from edgeformer.records.latency import LatencyAdvice, LatencyFigures, LatencyReport, LoadFigures

__all__ = ["Baseline", "Benched", "Candidate", "GraphChoice", "Settings", "bench"]

GraphChoice = Literal["both", "on", "off"]


@dataclass(frozen=True)
class Candidate:
    """A model to be timed.

    Attributes:
        name: in the report; every candidate has another.
        path: a bundle's folder, an engine, or an ONNX file.
        trusted: its maker is: an engine and its plugin library are code.
        precision: of an engine or a graph that is in no bundle; empty where it is not known.
        plugin_library: of an engine that is in no bundle.
    """

    name: str
    path: Path
    trusted: bool = False
    precision: str = ""
    plugin_library: Path | None = None


class Baseline(Protocol):
    """What candidates are put beside, such as PyTorch."""

    def open(self, batch: int) -> AbstractContextManager[Subject]:
        """It, ready to run at a batch."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        batches: images a run, one or more; the first is the user's. Empty for the batch that the first model was made
            for.
        seconds: of timed runs, for each model at each batch.
        backend: what runs the models; None takes TensorRT where that can.
        device: CUDA device.
        threads: of ONNX Runtime; None takes one a core.
        cuda_graphs: with and without graphs, or one of the two; where TensorRT runs nothing there are none.
    """

    batches: tuple[int, ...] = ()
    seconds: float = 10.0
    backend: Literal["tensorrt", "onnxruntime"] | None = None
    device: int = 0
    threads: int | None = None
    cuda_graphs: GraphChoice = "both"


@dataclass(frozen=True)
class Benched:
    """What came of it.

    Attributes:
        report: the figures and verdicts.
        traces: every timed run of each of the report's figures, in their order.
        gpu_problem: why there is no GPU; empty where there is one.
    """

    report: LatencyReport
    traces: tuple[tuple[Times, ...], ...]
    gpu_problem: str = ""


@dataclass
class _Loaded:
    candidate: Candidate
    model: Model
    kind: Literal["model", "control"]
    host_bytes: int | None
    device_bytes: int | None


@dataclass
class _Device:
    """The GPU, where there is one and a model may run on it."""

    survey: GpuSurvey
    cuda: Cuda | None
    sensors: dict[str, tuple[Sensors, str]] = field(default_factory=dict)

    def sensors_of(self, backend: str) -> tuple[Sensors, str]:
        """Those of what a backend runs on, and why the GPU's are not read."""
        if backend not in self.sensors:
            on_gpu = backend == "tensorrt" and self.cuda is not None
            self.sensors[backend] = sensors_for(self.cuda.bus_id if on_gpu and self.cuda is not None else None)
        return self.sensors[backend]


def bench(
    candidates: Sequence[Candidate],
    settings: Settings | None = None,
    *,
    baselines: Sequence[Baseline] = (),
    progress: Progress | None = None,
) -> Benched:
    """Time models in turns at each batch, and judge each pair of them.

    Args:
        candidates: the models; the first one is loaded twice, for the run's own noise.
        settings: how to measure; None for the defaults.
        baselines: what to put beside them. They take turns with the models, and no advice follows from them.
        progress: called after each round.

    Raises:
        InputError: a model cannot be loaded or run, or has another batch.
        EnvironmentFault: the machine lacks what a model needs.
    """
    settings = settings or Settings()
    passes: list[Measured] = []
    versions: dict[str, str] = {}
    choices = {"both": (False, True), "on": (True,), "off": (False,)}[settings.cuda_graphs]
    with ExitStack() as stack:
        device = _device(settings, stack)
        with ExitStack() as first:  # so that nobody's memory is that of the backend's library
            _load(candidates[0], "model", False, settings, device, first)
        by_tensorrt = True
        for graphs in choices:
            if graphs and not by_tensorrt:
                continue  # it was timed without graphs, and there are none
            with ExitStack() as loaded_ones:
                models = _load_all(candidates, bool(baselines), graphs, settings, device, loaded_ones)
                by_tensorrt = any(one.model.describe().backend == "tensorrt" for one in models)
                batches = settings.batches or (default_batch(models[0].model.describe()),)
                for batch in batches:
                    beside = () if passes and graphs and len(choices) > 1 else baselines
                    passes.append(_measure(models, beside, batch, graphs and by_tensorrt, settings, device, progress))
                for one in models:
                    found = one.model.describe()
                    versions[found.backend] = found.backend_version
    return Benched(
        report=_report(candidates, passes, versions, settings, device.survey),
        traces=tuple(trace for one in passes for trace in one.traces),
        gpu_problem=device.survey.problem,
    )


def _device(settings: Settings, stack: ExitStack) -> _Device:
    if settings.backend == "onnxruntime":
        return _Device(GpuSurvey((), None, None, "ONNX Runtime was asked for"), None)
    survey = find_gpus()
    cuda = stack.enter_context(Cuda(settings.device)) if survey.gpus else None
    return _Device(survey, cuda)


def _load_all(
    candidates: Sequence[Candidate],
    has_baselines: bool,
    graphs: bool,
    settings: Settings,
    device: _Device,
    stack: ExitStack,
) -> list[_Loaded]:
    loaded = [_load(one, "model", graphs, settings, device, stack) for one in candidates]
    if len(candidates) > 1 or has_baselines:
        loaded.append(_load(candidates[0], "control", graphs, settings, device, stack))
    return loaded


def _load(
    candidate: Candidate,
    kind: Literal["model", "control"],
    graphs: bool,
    settings: Settings,
    device: _Device,
    stack: ExitStack,
) -> _Loaded:
    """Load a model, and see what memory it takes."""
    host, free = _resident_bytes(), None if device.cuda is None else device.cuda.free_bytes()
    model = load(
        candidate.path,
        backend=settings.backend,
        device=settings.device,
        threads=settings.threads,
        # One shape for each batch.
        cuda_graphs=max(1, len(settings.batches)) if graphs else 0,
        trust_bundle=candidate.trusted,
        plugin_library=candidate.plugin_library,
    )
    stack.callback(model.close)
    found = model.describe()
    if found.backend == "onnxruntime":  # which allocates when it runs
        model.run(arrays_for(found, settings.batches[0] if settings.batches else default_batch(found)))
    # TensorRT allocates when it is loaded, and a graph that is captured of this run would be of other addresses.
    now = _resident_bytes()
    on_gpu = found.backend == "tensorrt" and device.cuda is not None and free is not None
    return _Loaded(
        candidate=candidate,
        model=model,
        kind=kind,
        host_bytes=None if host is None or now is None else max(0, now - host),
        device_bytes=max(0, free - device.cuda.free_bytes()) if on_gpu and free and device.cuda else None,
    )


def _measure(
    models: Sequence[_Loaded],
    baselines: Sequence[Baseline],
    batch: int,
    graphs: bool,
    settings: Settings,
    device: _Device,
    progress: Progress | None,
) -> Measured:
    with ExitStack() as stack:
        subjects = [_subject(one, batch, graphs, device, stack) for one in models]
        subjects += [stack.enter_context(baseline.open(batch)) for baseline in baselines]
        return compare(subjects, seconds=settings.seconds, progress=progress)


def _subject(one: _Loaded, batch: int, graphs: bool, device: _Device, stack: ExitStack) -> Subject:
    found = one.model.describe()
    sensors, not_read = device.sensors_of(found.backend)
    runner: Runner
    if found.backend == "tensorrt" and device.cuda is not None:
        runner = DeviceRunner(one.model, batch, device.cuda)
        name = next((gpu.name for gpu in device.survey.gpus if gpu.index == found.device), f"GPU {found.device}")
    else:
        runner, name = HostRunner(one.model, batch), "CPU"
    stack.callback(runner.close)
    # Why the GPU does not run it, for a bundle that was built for one.
    notes = tuple(
        text for text in (not_read, found.backend_reason and f"not by TensorRT: {found.backend_reason}") if text
    )
    return Subject(
        name=one.candidate.name if one.kind == "model" else f"{one.candidate.name}, loaded again",
        runner=runner,
        batch=batch,
        kind=one.kind,
        precision=found.precision or one.candidate.precision,
        backend=found.backend,
        backend_version=found.backend_version,
        device=name,
        cuda_graphs=graphs and found.backend == "tensorrt",
        host_memory_bytes=one.host_bytes,
        device_memory_bytes=one.device_bytes,
        notes=notes if one.kind == "model" else (),
        sensors=sensors,
    )


def _report(
    candidates: Sequence[Candidate],
    passes: Sequence[Measured],
    versions: dict[str, str],
    settings: Settings,
    survey: GpuSurvey,
) -> LatencyReport:
    figures = tuple(one for measured in passes for one in measured.figures)
    gpu = next((gpu.name for gpu in survey.gpus if gpu.index == settings.device), None)
    versions |= {one.backend: one.backend_version for one in figures if one.kind == "baseline"}
    return LatencyReport(
        measured=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(versions, gpu, survey.driver_version if gpu else None),
        figures=figures,
        comparisons=tuple(one for measured in passes for one in measured.comparisons),
        load=_sum([measured.load for measured in passes]),
        advice=_advice([one.name for one in candidates], passes[0]) if len(candidates) > 1 else None,
    )


def _advice(names: Sequence[str], measured: Measured) -> LatencyAdvice:
    """From the first pass: the user's batch, without graphs where they were not asked for alone."""
    of: dict[str, LatencyFigures] = {one.name: one for one in measured.figures}
    relevant = [
        one
        for one in measured.comparisons
        if one.timing == "end_to_end" and one.statistic == "median" and {one.name, one.reference} <= set(names)
    ]
    return advise(names, [of[name].precision for name in names], relevant, of[names[0]].batch)


def _sum(loads: Sequence[LoadFigures]) -> LoadFigures:
    rounds = sum(one.rounds for one in loads)
    return loads[0].model_copy(
        update={
            "rounds": rounds,
            "disturbed": sum(one.disturbed for one in loads),
            "cores": round(sum(one.cores * one.rounds for one in loads) / rounds, 3) if rounds else 0.0,
        }
    )


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
