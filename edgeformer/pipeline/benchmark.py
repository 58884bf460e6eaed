"""`bench_models`: time bundles, engines and ONNX files, and write what was found into the bundles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeformer.bundle import Manifest, StageRecord, open_bundle, stage_key
from edgeformer.bundle.amending import is_signed, record_stage
from edgeformer.bundle.details import LatencyDetails
from edgeformer.bundle.files import MANIFEST
from edgeformer.bundle.signature import is_trusted, signer
from edgeformer.errors import InputError
from edgeformer.inference import load
from edgeformer.latency.bench import Baseline, Candidate, Settings, bench
from edgeformer.latency.export_times import write_times
from edgeformer.latency.loadgen import Scenario, run_loadgen
from edgeformer.latency.runners import default_batch
from edgeformer.outputs import check_not_an_input
from edgeformer.pipeline.baselines import BaselineName, baseline_of
from edgeformer.progress import Progress
from edgeformer.records.latency import LatencyReport, LoadgenResult
from edgeformer.report import renew_report

__all__ = ["BenchRequest", "BenchResult", "bench_models"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchRequest:
    """What to time, and what to do with the figures.

    Attributes:
        paths: bundles' folders, engines and ONNX files.
        settings: how to measure.
        baselines: what to put beside the first bundle.
        checkpoint: of the PyTorch baselines, if it was moved.
        loadgen: scenario of MLPerf's LoadGen to run as well.
        loadgen_logs: folder for its logs.
        export_times: file for every timed run of the one model, in trtexec's form.
        record: write the report into the bundles' manifests.
        sign: private key to sign them again with.
        passphrase: asked where that key is encrypted.
        trust_bundle: the user trusts the bundles' makers: engines and plugin libraries are code.
        key: the makers' public key; the signatures have to hold for it.
    """

    paths: tuple[Path, ...]
    settings: Settings = field(default_factory=Settings)
    baselines: tuple[BaselineName, ...] = ()
    checkpoint: Path | None = None
    loadgen: Scenario | None = None
    loadgen_logs: Path | None = None
    export_times: Path | None = None
    record: bool = True
    sign: Path | None = None
    passphrase: Callable[[], str] | None = None
    trust_bundle: bool = False
    key: Path | None = None


@dataclass(frozen=True)
class BenchResult:
    """What came of it.

    Attributes:
        report: the figures and verdicts.
        gpu_problem: why there is no GPU; empty where there is one.
        recorded: the bundles that hold the report now.
        not_recorded: the other bundles, each with the reason.
    """

    report: LatencyReport
    gpu_problem: str
    recorded: tuple[Path, ...]
    not_recorded: dict[Path, str]


def bench_models(request: BenchRequest, *, progress: Progress | None = None) -> BenchResult:
    """Time models in turns, judge them, and write what was found into the bundles among them.

    The files of every bundle are checked against their hashes first.

    Args:
        request: what to time.
        progress: called after each round of blocks.

    Raises:
        InputError: a model is damaged, cannot be run, or has another batch; options do not go together.
        EnvironmentFault: the machine lacks what was asked for.
        OSError: a file cannot be written.
    """
    began = time.perf_counter()
    _check(request)
    manifests = {path: open_bundle(path) if path.is_dir() else None for path in request.paths}
    if request.sign is not None:
        signer(request.sign, request.passphrase)  # before minutes are spent
    candidates = _candidates(request, manifests)
    baselines = _baselines(request, manifests)
    benched = bench(candidates, request.settings, baselines=baselines, progress=progress)
    report = benched.report
    if request.export_times is not None:
        write_times(request.export_times, benched.traces[0])
    if request.loadgen is not None:
        assert request.loadgen_logs is not None
        found = _loadgen(request, request.loadgen, request.loadgen_logs, candidates)
        report = report.model_copy(update={"loadgen": found})
    recorded, not_recorded = _record(request, manifests, candidates, report, time.perf_counter() - began)
    return BenchResult(report, benched.gpu_problem, recorded, not_recorded)


def _check(request: BenchRequest) -> None:
    """Refuse what does not go together, before anything is loaded."""
    if not request.paths:
        raise InputError("EF103", "bench needs a bundle, an engine or an ONNX file")
    if request.export_times is not None:
        if len(request.paths) > 1 or len(request.settings.batches) > 1 or request.baselines:
            raise InputError("EF104", "--export-times is for one model at one batch alone: name one, and no baseline")
        check_not_an_input(request.export_times, [("model", path) for path in request.paths])
    if (request.loadgen is None) != (request.loadgen_logs is None):
        raise InputError("EF103", "--loadgen and --loadgen-logs go together: a scenario, and a folder for its logs")
    if request.loadgen == "singlestream" and request.settings.batches[:1] not in ((), (1,)):
        raise InputError(
            "EF104", "--loadgen singlestream sends one image after the other: leave out --batch, or give 1"
        )
    if request.sign is not None and not request.record:
        raise InputError("EF104", "--sign signs bundles that the figures are written into: leave out --no-record")
    if request.checkpoint is not None and not {"pytorch", "torch-compile"} & set(request.baselines):
        raise InputError("EF104", "--checkpoint is for --baseline pytorch and torch-compile")


def _candidates(request: BenchRequest, manifests: dict[Path, Manifest | None]) -> list[Candidate]:
    names = [path.resolve().name for path in request.paths]
    seen: dict[str, int] = {}
    found = []
    for name, path in zip(names, request.paths, strict=True):
        seen[name] = seen.get(name, 0) + 1
        # No path, which is none of the manifest's business. The same model twice shows what verdicts are worth.
        title = name if seen[name] == 1 else f"{name} ({seen[name]})"
        trusted = request.trust_bundle
        if manifests[path] is not None:
            trusted = is_trusted(path, trust_bundle=request.trust_bundle, key=request.key)
        found.append(Candidate(title, path, trusted))
    return found


def _baselines(request: BenchRequest, manifests: dict[Path, Manifest | None]) -> list[Baseline]:
    if not request.baselines:
        return []
    first = next(((path, manifest) for path, manifest in manifests.items() if manifest is not None), None)
    if first is None:
        raise InputError("EF918", "--baseline needs a bundle, which says where its model came from; none was given")
    threads = request.settings.threads
    return [
        baseline_of(name, *first, checkpoint=request.checkpoint, threads=threads)
        for name in dict.fromkeys(request.baselines)
    ]


def _loadgen(
    request: BenchRequest, scenario: Scenario, logs: Path, candidates: Sequence[Candidate]
) -> tuple[LoadgenResult, ...]:
    settings = request.settings
    results = []
    for number, candidate in enumerate(candidates):
        with load(
            candidate.path,
            backend=settings.backend,
            device=settings.device,
            threads=settings.threads,
            trust_bundle=candidate.trusted,
        ) as model:
            batch = settings.batches[0] if settings.batches else default_batch(model.describe())
            results.append(
                run_loadgen(
                    candidate.name,
                    model,
                    scenario,
                    batch=1 if scenario == "singlestream" else batch,
                    seconds=settings.seconds,
                    logs=logs / f"{number}-{candidate.path.resolve().name}" if len(candidates) > 1 else logs,
                )
            )
    return tuple(results)


def _record(
    request: BenchRequest,
    manifests: dict[Path, Manifest | None],
    candidates: Sequence[Candidate],
    report: LatencyReport,
    seconds: float,
) -> tuple[tuple[Path, ...], dict[Path, str]]:
    """Write the report into every bundle; gives those that have it now, and why the others do not."""
    recorded: list[Path] = []
    not_recorded: dict[Path, str] = {}
    for path, candidate in zip(request.paths, candidates, strict=True):
        manifest = manifests[path]
        if manifest is None or path in recorded or not request.record:
            continue
        if is_signed(path) and request.sign is None:
            not_recorded[path] = "it is signed, and the signature would not hold any more: --sign FILE signs it again"
            continue
        try:
            record_stage(
                path,
                _stage(candidate, manifest, report, seconds),
                key=request.sign,
                passphrase=request.passphrase,
            )
        except OSError as error:
            not_recorded[path] = f"{path / MANIFEST} cannot be written: {error.strerror or error}"
            continue
        recorded.append(path)
        left_out = renew_report(path)
        if left_out is not None:
            _log.warning(left_out)
    return tuple(recorded), not_recorded


def _stage(candidate: Candidate, manifest: Manifest, report: LatencyReport, seconds: float) -> StageRecord:
    files = {name: record.sha256 for name, record in manifest.files.items()}
    own = next(one for one in report.figures if one.name == candidate.name)
    note = f"{own.end_to_end.p50.ms or own.end_to_end.mean_ms:.3g} ms end to end at batch {own.batch} by {own.backend}"
    if report.advice is not None:
        note += f"; {report.advice.text}"
    return StageRecord(
        name="latency",
        key=stage_key("latency", measured=report.measured, files=files),
        seconds=round(seconds, 3),
        note=note,
        details=LatencyDetails(name=candidate.name, report=report),
    )
