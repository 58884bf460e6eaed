"""The bundle while a device finishes it: what is kept of it, and the manifest with what was made."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import Manifest, StageRecord, Staging
from edgeformer.bundle.details import CandidatesDetails, EngineDetails
from edgeformer.bundle.files import CANDIDATE, CANDIDATE_REPORT, ENGINE, ENGINE_REPORT, TIMING_CACHE
from edgeformer.errors import GateMissed
from edgeformer.ops.library_files import LIBRARY_NAME
from edgeformer.pipeline.device_plan import FinishPlan
from edgeformer.pipeline.publishing import publish
from edgeformer.pipeline.runner import Runner
from edgeformer.pipeline.stages._library import add_library
from edgeformer.pipeline.stages.device import candidate_stage
from edgeformer.pipeline.stages.latency import LATENCY

__all__ = [
    "as_engine",
    "bring_library",
    "keep",
    "merged",
    "publish_without_engine",
    "tuning_files",
    "tuning_stages",
]

_FINAL_NAMES = {CANDIDATE: ENGINE, CANDIDATE_REPORT: ENGINE_REPORT}


def keep(work: Staging, plan: FinishPlan, manifest: Manifest, engine: StageRecord | None) -> None:
    """Bring over what the bundle has besides its engine, and the plugin library where it lacks one.

    Args:
        work: the bundle in the making.
        plan: what is finished.
        manifest: of the bundle as it is.
        engine: the record of its engine, whose files stay behind.
    """
    replaced = {*_FINAL_NAMES, *_FINAL_NAMES.values(), *(() if engine is None else engine.files)}
    work.keep(name for name in manifest.files if name not in replaced and name not in tuning_files(manifest))
    bring_library(work, plan, manifest)


def bring_library(work: Staging, plan: FinishPlan, manifest: Manifest) -> None:
    """Put the plugin library into a bundle in the making that lacks it, or has another one than runs."""
    library = plan.library
    if library is None or plan.spec.embed_plugin or library.path.parent == plan.bundle:
        return
    if LIBRARY_NAME not in manifest.files or manifest.files[LIBRARY_NAME].sha256 != sha256_of_file(library.path):
        for file in library.files(plan.target.flavour):
            (work.path / file.name).unlink(missing_ok=True)
        add_library(Runner(work), library, plan.target.flavour)


def tuning_stages(manifest: Manifest) -> tuple[str, ...]:
    """The stages that ``finish --autotune`` has in the manifest while it is at work: the engines of all candidates."""
    details = manifest.details(CandidatesDetails)
    return () if details is None else tuple(candidate_stage(one.name) for one in details.candidates)


def tuning_files(manifest: Manifest) -> tuple[str, ...]:
    """The files of those stages, without what other stages have as well."""
    files = (file for stage in manifest.stages if stage.name in tuning_stages(manifest) for file in stage.files)
    return tuple(file for file in files if file != TIMING_CACHE)


def as_engine(work: Staging, engine: StageRecord) -> StageRecord:
    """Give a candidate the engine's name; its record with that."""
    for name in engine.files:
        if name in _FINAL_NAMES:
            (work.path / name).rename(work.path / _FINAL_NAMES[name])
    return engine.model_copy(update={"files": [_FINAL_NAMES.get(name, name) for name in engine.files]})


def merged(manifest: Manifest, made: Sequence[StageRecord], work: Staging, without: Collection[str] = ()) -> Manifest:
    """The manifest with records in the place of those of the same name; new ones come before the engine's.

    Args:
        manifest: as it was.
        made: the records.
        work: the bundle in the making, whose files it lists.
        without: stages whose records say nothing of this bundle any more.
    """
    names = {record.name for record in made}
    kept = [record for record in manifest.stages if record.name not in names]
    place = next((index for index, record in enumerate(manifest.stages) if record.name in names), len(manifest.stages))
    before = sum(record.name not in names for record in manifest.stages[:place])
    stages = [record for record in [*kept[:before], *made, *kept[before:]] if record.name not in without]
    return manifest.model_copy(update={"stages": stages, "files": work.file_records()})


def publish_without_engine(runner: Runner, plan: FinishPlan, manifest: Manifest, missed: GateMissed) -> None:
    """Publish the bundle without the engine that was compared last, and with its figures.

    Args:
        runner: has the records of the machine, the engine and the comparison.
        plan: what is finished.
        manifest: of the bundle as it is.
        missed: the gate.
    """
    for name in (ENGINE, ENGINE_REPORT):
        runner.path(name).unlink(missing_ok=True)
    machine, engine, parity = runner.records
    details = EngineDetails(
        spec=plan.spec,
        left_to_do=("find out why its outputs differ (engine-parity)",),
        candidate=None if plan.candidate is None else plan.candidate.name,
    )
    without = StageRecord(
        name=engine.name,
        key="",
        seconds=engine.seconds,
        files=[name for name in engine.files if name not in (ENGINE, ENGINE_REPORT)],
        verdict="not run",
        note=f"built here, and left out: {missed}",
        details=details,
    )
    gone = (LATENCY, *tuning_stages(manifest))
    publish(runner.work, merged(manifest, [machine, without, parity], runner.work, without=gone))
