"""`finish_bundle`: what is left of a build, done on the machine that the bundle is for. Needs neither torch nor onnx.

The bundle is published twice, each time as a whole: with the engine under a name that nobody loads, and, once it was
compared, with the engine. So what took hours is not lost if the machine stops in between, and no engine that was not
judged is ever the bundle's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import Manifest, StageRecord, Staging, read_manifest, staging
from edgeformer.bundle.details import EngineDetails
from edgeformer.bundle.files import CANDIDATE, CANDIDATE_REPORT, ENGINE, ENGINE_REPORT
from edgeformer.errors import GateMissed, InputError
from edgeformer.ops.library_files import LIBRARY_NAME
from edgeformer.pipeline.device_plan import FinishPlan, make_finish_plan
from edgeformer.pipeline.observer import Observer
from edgeformer.pipeline.publishing import publish
from edgeformer.pipeline.runner import Runner
from edgeformer.pipeline.stages import device
from edgeformer.pipeline.stages._library import add_library

__all__ = ["FinishResult", "finish_bundle"]

_FINAL_NAMES = {CANDIDATE: ENGINE, CANDIDATE_REPORT: ENGINE_REPORT}


@dataclass(frozen=True)
class FinishResult:
    """A finished bundle."""

    path: Path
    manifest: Manifest
    seconds: float


def finish_bundle(
    bundle: str | os.PathLike[str],
    *,
    trust_bundle: bool = False,
    key: str | os.PathLike[str] | None = None,
    workspace_bytes: int | None = None,
    observer: Observer | None = None,
) -> FinishResult:
    """Finish a bundle on the machine that it is for: build its engine, compare it with the recorded outputs.

    An engine that an earlier call built here from the same files, and that was not compared because the machine
    stopped, is taken. Where memory runs out, the engine is built again with less workspace.

    Args:
        bundle: folder of the bundle; it is replaced by the finished one, each time in one rename.
        trust_bundle: what came with the bundle may run, its plugin library and an engine in it: you trust its maker.
            Without it the installed plugin library is used, and an engine in the bundle is built anew.
        key: PEM file with the public key of the bundle's maker: its signature has to hold, and then it is trusted.
        workspace_bytes: limit of TensorRT's workspace; None takes the one that the bundle was built with.
        observer: follows the progress of the stages.

    Raises:
        InputError: no bundle, a damaged one, or code in it would have to run that is not trusted.
        GateMissed: the engine's outputs are not those recorded; the bundle has its figures and no engine then.
        EnvironmentFault: this machine lacks something that the engine needs.
    """
    begun = time.monotonic()
    plan = make_finish_plan(bundle, trust_bundle=trust_bundle, key=key, workspace_bytes=workspace_bytes)
    given = device.usable_engine(plan)
    machine, engine = (
        _with_engine(plan, observer) if given is None else (None, given.model_copy(update={"reused": True}))
    )
    with staging(plan.bundle) as work:
        runner = Runner(work, observer)
        manifest = read_manifest(plan.bundle)
        if work.reusable(engine.name, engine.key) is None:
            raise InputError("EF704", f"{plan.bundle}: changed while it was finished: try again")
        _keep(work, plan, manifest, engine)
        engine = _final(work, engine)
        if machine is None:
            device.look(runner, plan)
        else:
            runner.records.append(machine)
        runner.records.append(engine)
        try:
            device.compare(runner, plan, may_run=plan.trusted or not engine.reused)
        except GateMissed as missed:
            _publish_without_engine(runner, plan, manifest, missed)
            raise GateMissed(
                "EF933",
                f"{plan.bundle.name}: the engine that was built here gives other outputs than those recorded: "
                f"{runner.records[-1].gate}. The bundle keeps its ONNX files and has no engine; its manifest has the "
                "figures",
            ) from None
        finished = _merged(manifest, runner.records, work)
        publish(work, finished)
    return FinishResult(Path(bundle), finished, time.monotonic() - begun)


def _with_engine(plan: FinishPlan, observer: Observer | None) -> tuple[StageRecord, StageRecord]:
    """Build the engine and publish the bundle with it, as a candidate; the records of the machine and the engine."""
    with staging(plan.bundle) as work:
        runner = Runner(work, observer)
        older = plan.manifest.stage(device.ENGINE_STAGE)
        _keep(work, plan, plan.manifest, older)
        device.look(runner, plan)
        device.build(runner, plan)
        machine, engine = runner.records
        if not engine.reused:
            runner.skip(device.ENGINE_PARITY, "not compared yet: finish the bundle")
            publish(work, _merged(plan.manifest, runner.records, work))
    return machine, engine


def _keep(work: Staging, plan: FinishPlan, manifest: Manifest, engine: StageRecord | None) -> None:
    """Bring over what the bundle has besides its engine, and the plugin library where it lacks one."""
    replaced = {*_FINAL_NAMES, *_FINAL_NAMES.values(), *(() if engine is None else engine.files)}
    work.keep(name for name in manifest.files if name not in replaced)
    library = plan.library
    if library is None or plan.spec.embed_plugin or library.path.parent == plan.bundle:
        return
    if LIBRARY_NAME not in manifest.files or manifest.files[LIBRARY_NAME].sha256 != sha256_of_file(library.path):
        for file in library.files(plan.target.flavour):
            (work.path / file.name).unlink(missing_ok=True)
        add_library(Runner(work), library, plan.target.flavour)


def _final(work: Staging, engine: StageRecord) -> StageRecord:
    """Give the candidate the engine's name."""
    for name in engine.files:
        if name in _FINAL_NAMES:
            (work.path / name).rename(work.path / _FINAL_NAMES[name])
    return engine.model_copy(update={"files": [_FINAL_NAMES.get(name, name) for name in engine.files]})


def _publish_without_engine(runner: Runner, plan: FinishPlan, manifest: Manifest, missed: GateMissed) -> None:
    for name in (ENGINE, ENGINE_REPORT):
        runner.path(name).unlink(missing_ok=True)
    machine, engine, parity = runner.records
    details = EngineDetails(spec=plan.spec, left_to_do=("find out why its outputs differ (engine-parity)",))
    without = StageRecord(
        name=engine.name,
        key="",
        seconds=engine.seconds,
        files=[name for name in engine.files if name not in (ENGINE, ENGINE_REPORT)],
        verdict="not run",
        note=f"built here, and left out: {missed}",
        details=details,
    )
    publish(runner.work, _merged(manifest, [machine, without, parity], runner.work))


def _merged(manifest: Manifest, made: Sequence[StageRecord], work: Staging) -> Manifest:
    """The manifest with records in the place of those of the same name; new ones come before the engine's."""
    names = {record.name for record in made}
    kept = [record for record in manifest.stages if record.name not in names]
    place = next((index for index, record in enumerate(manifest.stages) if record.name in names), len(manifest.stages))
    before = sum(record.name not in names for record in manifest.stages[:place])
    stages = [*kept[:before], *made, *kept[before:]]
    return manifest.model_copy(update={"stages": stages, "files": work.file_records()})
