"""``finish --autotune``: an engine of each form of the model that the bundle brings; the fastest that is right is kept.

Each engine is published as soon as it is built, under a name that nobody loads, so that a call after a power loss takes
it. An engine that the bundle has stays until the choice is made, which is published as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from edgeformer.bundle import Manifest, StageRecord, Staging, read_manifest, stage_key, staging
from edgeformer.bundle.details import (
    AutotuneDetails,
    CandidatesDetails,
    EngineDetails,
    EngineParityDetails,
    LatencyDetails,
)
from edgeformer.bundle.figures import snr_db
from edgeformer.bundle.files import CANDIDATE, CANDIDATE_REPORT, ENGINE, ENGINE_REPORT, TIMING_CACHE, engine_of
from edgeformer.errors import EdgeformerError, EnvironmentFault, GateMissed, InputError
from edgeformer.latency.choice import Choice, choose, outcome_of
from edgeformer.pipeline.device_bundle import bring_library, merged, tuning_files, tuning_stages
from edgeformer.pipeline.device_plan import FinishPlan
from edgeformer.pipeline.observer import Observer
from edgeformer.pipeline.published import without_paths
from edgeformer.pipeline.publishing import publish
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages import device
from edgeformer.pipeline.stages.latency import LATENCY, not_measured
from edgeformer.records.autotune import CandidateRecord, Outcome, TunedRecord
from edgeformer.records.engine import EngineReport
from edgeformer.records.latency import LatencyReport

__all__ = ["AUTOTUNE", "AUTOTUNE_SECONDS", "tune"]

AUTOTUNE = "autotune"
# As `edgeformer bench`, whose verdict it is.
AUTOTUNE_SECONDS = 10.0


@dataclass(frozen=True)
class _Candidate:
    """A candidate on its way.

    Attributes:
        plan: for it.
        known: what the build found of it.
        engine: the record of its engine; ``None`` where that could not be built.
        report: on the build of its engine.
        judged: its outputs against those recorded; ``None`` where it was not compared.
        fault: why it has no engine, or does not run.
    """

    plan: FinishPlan
    known: CandidateRecord
    engine: StageRecord | None = None
    report: EngineReport | None = None
    judged: Judged | None = None
    fault: EdgeformerError | None = None

    @property
    def passed(self) -> bool:
        """Whether it may be chosen."""
        return self.judged is not None and self.judged.verdict != "missed"

    @property
    def size(self) -> int | None:
        """Of its engine, bytes."""
        return None if self.report is None else self.report.engine_bytes

    @property
    def snr_db(self) -> float | None:
        """Of its engine's outputs against those recorded."""
        if self.judged is None or not isinstance(self.judged.details, EngineParityDetails):
            return None
        return snr_db(self.judged.details.report.forms[-1])


@dataclass(frozen=True)
class _Tuned:
    """What came of all.

    Attributes:
        candidates: each compared, or with its fault.
        choice: the one that is kept; ``None`` where none met its gate.
        latency: of those that did.
        problem: why they were not timed.
    """

    candidates: tuple[_Candidate, ...]
    choice: Choice | None
    latency: LatencyReport | None
    problem: str


def tune(plan: FinishPlan, seconds: float, observer: Observer) -> Manifest:
    """Build an engine of each candidate, compare each with the recorded outputs, time those that pass, keep the best.

    Args:
        plan: what is finished.
        seconds: of timed runs, for each.
        observer: follows the progress of the stages.

    Returns:
        The manifest of the finished bundle.

    Raises:
        InputError: the bundle has no candidates.
        GateMissed: none meets its gate; the bundle has the figures and no engine then.
        EnvironmentFault: engines do not run here, so that there is nothing to compare.
        EdgeformerError: no engine can be built, or none runs: the first one's reason.
    """
    wanted = _candidates(plan)
    obstacle = device.not_run(plan, may_run=True)
    if obstacle:
        raise EnvironmentFault(
            "EF935", f"--autotune compares engines and times them, and none runs here: {obstacle}. Finish without it"
        )
    built: list[_Candidate] = []
    for known in wanted:
        built.append(_with_engine(plan, known, observer, first=not any(one.engine for one in built)))
    if not any(one.engine for one in built):
        assert built[0].fault is not None
        raise built[0].fault
    with staging(plan.bundle) as work:
        runner = Runner(work, observer)
        manifest = read_manifest(plan.bundle)
        _keep(work, plan, manifest, without=(ENGINE, ENGINE_REPORT, *tuning_files(manifest)))
        candidates = [_brought(runner, one) for one in built]
        device.look(runner, plan)
        found: list[_Tuned] = []

        def make() -> Judged:
            found.append(_compare_and_time(runner, candidates, seconds))
            return _judged(found[0])

        try:
            runner.run(AUTOTUNE, [], make, {}, always=True)
        except GateMissed:
            gate = runner.records[-1].gate
            _publish_without_engine(runner, plan, manifest, candidates)
            raise GateMissed(
                "EF936",
                f"{plan.bundle.name}: no candidate's engine gives the recorded outputs: {gate}. The bundle keeps its "
                "ONNX files and has no engine; its manifest has the figures",
            ) from None
        kept = _take(runner, found[0])
        precision = kept.known.precision
        finished = merged(manifest, runner.records, work, without=tuning_stages(manifest)).model_copy(
            update={"engine_precision": None if precision == manifest.precision else precision}
        )
        publish(work, finished)
    return finished


def _candidates(plan: FinishPlan) -> tuple[CandidateRecord, ...]:
    """Those that can be built, the bundle's own form first."""
    details = plan.manifest.details(CandidatesDetails)
    found = () if details is None else details.candidates
    usable = tuple(
        one
        for index, one in enumerate(found)
        if one.verdict != "missed" and (one.file in plan.manifest.files or (not index and one.file is None))
    )
    if len(usable) < 2:
        raise InputError(
            "EF934",
            f"{plan.bundle.name} has no candidates for --autotune, which are beside INT8: build it with --precision "
            "int8 and --autotune-candidates (the default where an INT8 engine is built on the device)",
        )
    return usable


def _with_engine(plan: FinishPlan, known: CandidateRecord, observer: Observer, *, first: bool) -> _Candidate:
    """Build a candidate's engine, and publish the bundle with it, or take it from an earlier call.

    Args:
        plan: for any of them.
        known: the candidate.
        observer: follows the progress.
        first: nothing in the bundle was built by this call yet.
    """
    from edgeformer.engine.build_process import BuildFailed

    # Only a name that differs from the bundle's own form stands in the manifest.
    own = replace(plan, candidate=None if known.file is None else known)
    with staging(plan.bundle) as work:
        runner = Runner(work, observer)
        manifest = read_manifest(plan.bundle)
        # The kernels' times came with the bundle until an engine was built here.
        _keep(work, plan, manifest, without=(TIMING_CACHE,) if first and not plan.trusted else ())
        try:
            device.build_candidate(runner, own, known.name)
        except (BuildFailed, InputError, GateMissed) as fault:
            return _Candidate(own, known, fault=fault)
        except EnvironmentFault as fault:
            if fault.code != "EF932":  # else memory, of which another form may take less
                raise
            return _Candidate(own, known, fault=fault)
        (engine,) = runner.records
        if not engine.reused:
            publish(work, merged(manifest, runner.records, work))
    return _Candidate(own, known, engine)


def _keep(work: Staging, plan: FinishPlan, manifest: Manifest, without: Collection[str]) -> None:
    """Bring over what the bundle has, and the plugin library where it lacks one."""
    replaced = {CANDIDATE, CANDIDATE_REPORT, *without}
    work.keep(name for name in manifest.files if name not in replaced)
    bring_library(work, plan, manifest)


def _brought(runner: Runner, one: _Candidate) -> _Candidate:
    """A candidate whose engine is in the bundle that is made."""
    if one.engine is None:
        return one
    if runner.work.reusable(one.engine.name, one.engine.key) is None:
        raise InputError("EF704", f"{one.plan.bundle}: changed while it was finished: try again")
    from edgeformer.engine.build_process import SIDECAR_SUFFIX

    text = runner.path(f"{engine_of(one.known.name)}{SIDECAR_SUFFIX}").read_text(encoding="utf-8")
    return replace(one, report=EngineReport.model_validate_json(text))


def _compare_and_time(runner: Runner, candidates: Sequence[_Candidate], seconds: float) -> _Tuned:
    """Compare each with the recorded outputs, and time those that pass in turns.

    Raises:
        EdgeformerError: none runs: the engines stay for another try.
    """
    progress = runner.progress(AUTOTUNE)
    compared = []
    for number, one in enumerate(candidates):
        progress(f"comparing {one.known.name}", number, len(candidates))
        compared.append(_compared(runner, one))
    # Of those that do not differ the first one is kept.
    passed = sorted((one for one in compared if one.passed), key=lambda one: -(one.snr_db or 0.0))
    others = [one for one in compared if not one.passed]
    faults = [one.fault for one in others if one.engine is not None and one.fault is not None]
    if faults and not any(one.judged for one in compared):
        raise faults[0]
    if not passed:
        return _Tuned(tuple(others), None, None, "")
    latency, problem = _timed(runner, passed, seconds)
    names = [one.known.name for one in passed]
    own = candidates[0].known.name
    return _Tuned((*passed, *others), choose(names, own, latency, problem), latency, problem)


def _compared(runner: Runner, one: _Candidate) -> _Candidate:
    if one.engine is None:
        return one
    try:
        return replace(one, judged=device.judged(runner, one.plan, engine_of(one.known.name)))
    except (InputError, EnvironmentFault) as fault:
        return replace(one, fault=fault)


def _timed(runner: Runner, passed: Sequence[_Candidate], seconds: float) -> tuple[LatencyReport | None, str]:
    """Time engines in turns; ``None`` and the reason where that cannot be done."""
    from edgeformer.latency.bench import Candidate, Settings, bench

    candidates = [
        Candidate(
            one.known.name,
            runner.path(engine_of(one.known.name)),
            trusted=True,  # they were built here, or their maker is trusted
            precision=one.known.precision,
            plugin_library=one.plan.library_beside,
        )
        for one in passed
    ]
    settings = Settings(seconds=seconds, backend="tensorrt", cuda_graphs="off")
    try:
        return bench(candidates, settings, progress=runner.progress(AUTOTUNE)).report, ""
    except (InputError, EnvironmentFault) as fault:
        return None, str(fault)


def _judged(tuned: _Tuned) -> Judged:
    """What the manifest keeps of it."""
    details = without_paths(
        AutotuneDetails(
            candidates=tuple(_record(tuned, one) for one in tuned.candidates),
            kept=None if tuned.choice is None else tuned.choice.kept,
            text="no engine gives the recorded outputs" if tuned.choice is None else tuned.choice.why,
            comparisons=() if tuned.latency is None else tuned.latency.comparisons,
        )
    )
    told = (f"{one.name}: {one.outcome}" + (f" ({one.reason})" if one.reason else "") for one in details.candidates)
    return Judged("missed" if details.kept is None else "passed", "; ".join(told), details.text, details)


def _record(tuned: _Tuned, one: _Candidate) -> TunedRecord:
    name = one.known.name
    outcome, reason = _outcome(tuned, one)
    figures = () if tuned.latency is None else tuned.latency.figures
    p50 = next((found.end_to_end.p50.ms for found in figures if (found.name, found.kind) == (name, "model")), None)
    return TunedRecord(
        name=name,
        precision=one.known.precision,
        outcome=outcome,
        reason=reason,
        gate=None if one.judged is None else one.judged.gate,
        snr_db=one.snr_db,
        engine_bytes=one.size,
        p50_ms=p50,
    )


def _outcome(tuned: _Tuned, one: _Candidate) -> tuple[Outcome, str]:
    if one.fault is not None:
        return ("does not run" if one.engine is not None else "no engine"), str(one.fault)
    if not one.passed:
        return "missed its gate", (one.judged.gate if one.judged is not None else None) or ""
    assert tuned.choice is not None  # where one passes
    return outcome_of(one.known.name, tuned.choice.kept, tuned.latency), ""


def _take(runner: Runner, tuned: _Tuned) -> _Candidate:
    """Give the kept engine its name, drop the others, and record it with its comparison and its times."""
    assert tuned.choice is not None
    kept = next(one for one in tuned.candidates if one.known.name == tuned.choice.kept)
    assert kept.engine is not None
    assert kept.judged is not None
    names = _renamed(kept)
    for old, new in names.items():
        runner.path(old).rename(runner.path(new))
    _drop(runner, tuned.candidates)
    runner.records.append(
        kept.engine.model_copy(
            update={
                "name": device.ENGINE_STAGE,
                "key": runner.key(device.ENGINE_STAGE, device.key_inputs(kept.plan)),
                "reused": False,
                "files": [names.get(name, name) for name in kept.engine.files],
                "details": EngineDetails(
                    report=kept.report,
                    spec=kept.plan.spec,
                    candidate=None if kept.plan.candidate is None else kept.plan.candidate.name,
                ),
            }
        )
    )
    judged = kept.judged
    runner.run(device.ENGINE_PARITY, [], lambda: judged, {"engine": runner.sha256(ENGINE)}, always=True)
    runner.records.append(_latency(tuned, kept))
    return kept


def _latency(tuned: _Tuned, kept: _Candidate) -> StageRecord:
    if tuned.latency is None:
        return not_measured(tuned.problem)
    name = kept.known.name
    own = next(one for one in tuned.latency.figures if (one.name, one.kind) == (name, "model"))
    return StageRecord(
        name=LATENCY,
        key=stage_key(LATENCY, measured=tuned.latency.measured, name=name),
        seconds=0.0,
        note=f"{own.end_to_end.p50.ms or own.end_to_end.mean_ms:.3g} ms end to end at batch {own.batch}, timed by "
        f"{AUTOTUNE}",
        details=LatencyDetails(name=name, report=tuned.latency),
    )


def _publish_without_engine(
    runner: Runner, plan: FinishPlan, manifest: Manifest, candidates: Sequence[_Candidate]
) -> None:
    _drop(runner, candidates)
    details = EngineDetails(spec=plan.spec, left_to_do=("find out why the outputs of all engines differ (autotune)",))
    runner.records.append(
        StageRecord(
            name=device.ENGINE_STAGE,
            key="",
            seconds=0.0,
            verdict="not run",
            note="no candidate met its gate",
            details=details,
        )
    )
    runner.skip(device.ENGINE_PARITY, "no engine is left")
    without = (LATENCY, *tuning_stages(manifest))
    finished = merged(manifest, runner.records, runner.work, without=without)
    publish(runner.work, finished.model_copy(update={"engine_precision": None}))


def _renamed(one: _Candidate) -> dict[str, str]:
    from edgeformer.engine.build_process import SIDECAR_SUFFIX

    engine = engine_of(one.known.name)
    return {engine: ENGINE, f"{engine}{SIDECAR_SUFFIX}": ENGINE_REPORT}


def _drop(runner: Runner, candidates: Sequence[_Candidate]) -> None:
    for one in candidates:
        for name in _renamed(one):
            runner.path(name).unlink(missing_ok=True)
