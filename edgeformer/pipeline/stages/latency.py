"""``latency`` where a bundle is finished.

The engine is timed once the bundle is published, so that a measurement which ends badly costs nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

from edgeformer.bundle import Manifest, StageRecord, read_manifest
from edgeformer.bundle.amending import record_stage
from edgeformer.bundle.details import LatencyDetails
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.pipeline.observer import Observer
from edgeformer.pipeline.published import without_paths
from edgeformer.report import renew_report
from edgeformer.supervision.limits import stage

__all__ = ["LATENCY", "LATENCY_SECONDS", "not_measured", "time_bundle"]

LATENCY = "latency"
# Enough for a p99 (662 runs) up to 4 ms; who wants more asks `edgeformer bench`.
LATENCY_SECONDS = 3.0


def not_measured(reason: str, seconds: float = 0.0) -> StageRecord:
    """The record of a measurement that there is none of."""
    record = StageRecord(
        name=LATENCY, key="", seconds=round(seconds, 3), verdict="not run", note=f"not measured: {reason}"
    )
    return without_paths(record)


def time_bundle(bundle: Path, seconds: float, observer: Observer) -> Manifest:
    """Time the engine of a finished bundle, and write the figures into its manifest, or why there are none.

    Args:
        bundle: its folder; what is in it may run.
        seconds: of timed runs.
        observer: told of the stage.

    Returns:
        The manifest as it is then. Where it cannot be written any more, what it would say.
    """
    observer.started(LATENCY)
    begun = time.monotonic()
    with stage(LATENCY):
        reason = _time(bundle, seconds, observer)
    manifest = read_manifest(bundle)
    record = manifest.stage(LATENCY)
    if reason:
        record = not_measured(reason, time.monotonic() - begun)
        # Figures of this engine from before say more than that there are no new ones.
        if manifest.details(LatencyDetails) is None:
            manifest = _with_record(bundle, manifest, record)
    assert record is not None
    observer.finished(record)
    return manifest


def _time(bundle: Path, seconds: float, observer: Observer) -> str:
    """Do it; why there are no figures in the manifest, empty where there are."""
    from edgeformer.latency.bench import Settings
    from edgeformer.pipeline.benchmark import BenchRequest, bench_models

    request = BenchRequest(
        paths=(bundle,),
        # Without graphs, as `ef.load` runs it: `edgeformer bench` times both.
        settings=Settings(seconds=seconds, backend="tensorrt", cuda_graphs="off"),
        trust_bundle=True,
    )
    try:
        result = bench_models(
            request, progress=lambda text, done, total: observer.progressed(LATENCY, text, done, total)
        )
    except (InputError, EnvironmentFault) as error:
        return str(error)
    return result.not_recorded.get(bundle, "")


def _with_record(bundle: Path, manifest: Manifest, record: StageRecord) -> Manifest:
    try:
        record_stage(bundle, record)
        renew_report(bundle)
        return read_manifest(bundle)
    except (InputError, OSError):  # signed, or it cannot be written, as the record says
        others = [one for one in manifest.stages if one.name != LATENCY]
        return manifest.model_copy(update={"stages": [*others, record]})
