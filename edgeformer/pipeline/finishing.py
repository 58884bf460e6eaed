"""`finish_bundle`: what is left of a build, done on the machine that the bundle is for. Needs neither torch nor onnx.

The bundle is published twice, each time as a whole: with the engine under a name that nobody loads, and, once it was
compared, with the engine. So what took hours is not lost if the machine stops in between, and no engine that was not
judged is ever the bundle's. It is timed after that: the figures go into the manifest of a bundle that is whole without
them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edgeformer.bundle import Manifest, StageRecord, read_manifest, staging
from edgeformer.bundle.details import LatencyDetails
from edgeformer.errors import GateMissed, InputError
from edgeformer.ops.library_files import LIBRARY_NAME
from edgeformer.pipeline.autotuning import AUTOTUNE_SECONDS, tune
from edgeformer.pipeline.device_bundle import as_engine, keep, merged, publish_without_engine, tuning_stages
from edgeformer.pipeline.device_plan import FinishPlan, make_finish_plan
from edgeformer.pipeline.observer import Observer
from edgeformer.pipeline.publishing import publish
from edgeformer.pipeline.runner import Runner
from edgeformer.pipeline.stages import device
from edgeformer.pipeline.stages.latency import LATENCY, LATENCY_SECONDS, not_measured, time_bundle

__all__ = ["FinishResult", "finish_bundle"]


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
    latency_seconds: float | None = None,
    autotune: bool = False,
    observer: Observer | None = None,
) -> FinishResult:
    """Finish a bundle on the machine that it is for: build its engine, compare it with the recorded outputs, time it.

    An engine that an earlier call built here from the same files, and that was not compared because the machine
    stopped, is taken. Where memory runs out, the engine is built again with less workspace. Where it cannot be timed,
    the manifest says why, and the bundle is finished all the same.

    Args:
        bundle: folder of the bundle; it is replaced by the finished one, each time in one rename.
        trust_bundle: what came with the bundle may run, its plugin library and an engine in it: you trust its maker.
            Without it the installed plugin library is used, and an engine in the bundle is built anew.
        key: PEM file with the public key of the bundle's maker: its signature has to hold, and then it is trusted.
        workspace_bytes: limit of TensorRT's workspace; None takes the one that the bundle was built with.
        latency_seconds: time of timed runs, in seconds; None for 3, or with ``autotune`` for 10 of each engine; 0 for
            none.
        autotune: build an engine of each form of the model that the bundle brings, and keep the fastest of those that
            meet their gates. Engines that an earlier call built are taken.
        observer: follows the progress of the stages.

    Raises:
        InputError: no bundle, a damaged one, code in it would have to run that is not trusted, or there is nothing to
            choose from.
        GateMissed: the outputs of the engine, or of all of them, are not those recorded; the bundle has its figures and
            no engine then.
        EnvironmentFault: this machine lacks something that the engine needs.
    """
    begun = time.monotonic()
    observer = observer or Observer()
    if autotune and latency_seconds == 0:
        raise InputError("EF104", "autotune chooses by latency: leave it out, or let the engines be timed")
    plan = make_finish_plan(bundle, trust_bundle=trust_bundle, key=key, workspace_bytes=workspace_bytes)
    if autotune:
        finished = tune(plan, AUTOTUNE_SECONDS if latency_seconds is None else latency_seconds, observer)
        return FinishResult(Path(bundle), finished, time.monotonic() - begun)
    seconds = LATENCY_SECONDS if latency_seconds is None else latency_seconds
    given = device.usable_engine(plan)
    machine, engine = (
        _with_engine(plan, observer) if given is None else (None, given.model_copy(update={"reused": True}))
    )
    may_run = plan.trusted or not engine.reused
    obstacle = _obstacle(plan, may_run)
    with staging(plan.bundle) as work:
        runner = Runner(work, observer)
        manifest = read_manifest(plan.bundle)
        if work.reusable(engine.name, engine.key) is None:
            raise InputError("EF704", f"{plan.bundle}: changed while it was finished: try again")
        keep(work, plan, manifest, engine)
        engine = as_engine(work, engine)
        if machine is None:
            device.look(runner, plan)
        else:
            runner.records.append(machine)
        runner.records.append(engine)
        try:
            device.compare(runner, plan, may_run=may_run)
        except GateMissed as missed:
            publish_without_engine(runner, plan, manifest, missed)
            raise GateMissed(
                "EF933",
                f"{plan.bundle.name}: the engine that was built here gives other outputs than those recorded: "
                f"{runner.records[-1].gate}. The bundle keeps its ONNX files and has no engine; its manifest has the "
                "figures",
            ) from None
        if seconds and obstacle and manifest.details(LatencyDetails) is None:
            runner.records.append(not_measured(obstacle))
        finished = merged(manifest, runner.records, work, without=tuning_stages(manifest))
        publish(work, finished)
    if seconds and not obstacle:
        finished = time_bundle(plan.bundle, seconds, observer)
    return FinishResult(Path(bundle), finished, time.monotonic() - begun)


def _obstacle(plan: FinishPlan, may_run: bool) -> str:
    """Why the bundle cannot be timed as an application runs it; empty where it can."""
    reason = device.not_run(plan, may_run)
    if not reason and not plan.trusted and plan.library is None and LIBRARY_NAME in plan.manifest.files:
        # The engine does not need it, and whoever loads the bundle would open it.
        reason = f"{LIBRARY_NAME} came with the bundle and is not trusted, give --trust-bundle or --key"
    return reason


def _with_engine(plan: FinishPlan, observer: Observer) -> tuple[StageRecord, StageRecord]:
    """Build the engine and publish the bundle with it, as a candidate; the records of the machine and the engine."""
    with staging(plan.bundle) as work:
        runner = Runner(work, observer)
        older = plan.manifest.stage(device.ENGINE_STAGE)
        keep(work, plan, plan.manifest, older)
        device.look(runner, plan)
        device.build(runner, plan)
        machine, engine = runner.records
        if not engine.reused:
            runner.skip(device.ENGINE_PARITY, "not compared yet: finish the bundle")
            # What was measured was another engine.
            gone = (LATENCY, *tuning_stages(plan.manifest))
            publish(work, merged(plan.manifest, runner.records, work, without=gone))
    return machine, engine
