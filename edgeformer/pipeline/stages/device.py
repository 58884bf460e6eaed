"""``device``, ``engine``, ``engine-parity`` where a bundle is finished: on the machine that it is for, without onnx."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import StageRecord
from edgeformer.bundle.details import DeviceDetails, EngineDetails, EngineParityDetails, ParityDetails
from edgeformer.bundle.files import CANDIDATE, ENGINE, PARITY, TIMING_CACHE, engine_of
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.pipeline.device_plan import FinishPlan
from edgeformer.pipeline.published import without_paths
from edgeformer.pipeline.runner import Judged, Runner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeformer.engine.build_process import BuildFailed, EngineBuild
    from edgeformer.inference import Model
    from edgeformer.records.engine import EngineSpec
    from edgeformer.runtime.session import Array

__all__ = [
    "DEVICE",
    "ENGINE_PARITY",
    "ENGINE_STAGE",
    "build",
    "build_candidate",
    "candidate_stage",
    "compare",
    "judged",
    "key_inputs",
    "look",
    "not_run",
    "usable_engine",
]

DEVICE, ENGINE_STAGE, ENGINE_PARITY = "device", "engine", "engine-parity"
# Workspaces to try where memory ran out with a larger one, bytes.
_FALL_BACK = (1 << 30, 1 << 28, 1 << 26)
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|could not be allocated", re.IGNORECASE)
# Also what TensorRT says of an operator that no kernel of it takes.
_NO_KERNEL = re.compile("could not find any implementation", re.IGNORECASE)


def look(runner: Runner, plan: FinishPlan) -> None:
    """Record the machine, and what is not as it should be on it."""
    found = Judged(note="; ".join(plan.faults) or None, details=DeviceDetails(machine=plan.machine, faults=plan.faults))
    runner.run(DEVICE, [], lambda: found, {}, always=True)


def usable_engine(plan: FinishPlan) -> StageRecord | None:
    """The record of an engine that came with the bundle and is as one that would be built here; else ``None``.

    One that is built anywhere is: TensorRT-RTX times nothing. It is tied to the version that built it, and it is the
    bundle's code.
    """
    record = plan.manifest.stage(ENGINE_STAGE)
    details = plan.manifest.details(EngineDetails)
    report = None if details is None else details.report
    if record is None or report is None or details is None or ENGINE not in plan.manifest.files:
        return None
    same = report.tensorrt_version == plan.backend.module and details.spec == plan.spec
    return record if plan.trusted and plan.target.built == "anywhere" and same else None


def build(runner: Runner, plan: FinishPlan) -> None:
    """Build the engine, as a candidate that nobody loads yet."""
    _build(runner, plan, ENGINE_STAGE, CANDIDATE)


def build_candidate(runner: Runner, plan: FinishPlan, name: str) -> None:
    """Build the engine of one of several candidates, from the plan for it."""
    _build(runner, plan, candidate_stage(name), engine_of(name))


def candidate_stage(name: str) -> str:
    """The stage of a candidate's engine, which is in the manifest until one of them is chosen."""
    return f"engine of {name}"


def _build(runner: Runner, plan: FinishPlan, stage: str, engine: str) -> None:
    from edgeformer.engine.build_process import SIDECAR_SUFFIX, write_engine

    files = [engine, f"{engine}{SIDECAR_SUFFIX}"]

    def make() -> Judged:
        cache = runner.path(TIMING_CACHE) if plan.target.flavour == "tensorrt" else None
        built, notes = _with_less_memory(runner, plan, stage)
        report = without_paths(built.report)
        write_engine(type(built)(built.serialized, report), runner.path(engine))
        if cache is not None and cache.is_file():
            files.append(TIMING_CACHE)
        details = None
        if stage == ENGINE_STAGE:
            name = None if plan.candidate is None else plan.candidate.name
            details = EngineDetails(report=report, spec=plan.spec, candidate=name)
        gate = f"{report.plugin.in_network} plugin layers for {report.op_nodes} op nodes"
        judged = plan.spec.use_plugin
        return Judged("passed" if judged else "not judged", gate if judged else None, "; ".join(notes) or None, details)

    # What somebody else may have put there is not taken for an engine that was built here.
    runner.run(stage, files, make, key_inputs(plan), always=not plan.trusted)


def key_inputs(plan: FinishPlan) -> dict[str, Any]:
    """All that an engine depends on."""
    return {
        "graph": sha256_of_file(plan.graph),
        "spec": plan.spec.model_dump(mode="json"),
        "target": plan.target.name,
        "tensorrt": plan.backend.version,
        "gpu": [plan.machine.gpu, plan.machine.sm, plan.machine.l4t] if plan.target.built == "on-device" else None,
        "plugin": None if plan.library is None else sha256_of_file(plan.library.path),
    }


def compare(runner: Runner, plan: FinishPlan, *, may_run: bool) -> None:
    """Run the engine on the recorded inputs and judge its outputs by the recorded ones.

    Args:
        runner: of the bundle, whose engine is there.
        plan: what is finished.
        may_run: the engine was built here, or what came with the bundle is trusted.

    Raises:
        GateMissed: the outputs differ by more than the gate of the precision allows.
    """
    reason = not_run(plan, may_run)
    if reason:
        runner.skip(ENGINE_PARITY, f"engine not run: {reason}")
        return

    runner.run(ENGINE_PARITY, [], lambda: judged(runner, plan, ENGINE), {"engine": runner.sha256(ENGINE)}, always=True)


def judged(runner: Runner, plan: FinishPlan, engine: str) -> Judged:
    """Run an engine of the bundle, named by its file, on the recorded inputs, and judge its outputs.

    Raises:
        InputError: it cannot be run, or its outputs are not those that were recorded.
        EnvironmentFault: the machine lacks what it needs.
    """
    from edgeformer.pipeline.stages._verdicts import verdict_of
    from edgeformer.verify.recorded import judge_recorded

    parity = plan.manifest.details(ParityDetails)
    inputs, recorded = _recorded(runner, "input:"), _recorded(runner, "output:")
    with _loaded(runner.path(engine), plan) as model:
        begun = time.perf_counter()
        outputs = _run(model, inputs, plan.spec)
        seconds = time.perf_counter() - begun
    report = judge_recorded(
        "engine",
        plan.precision,
        recorded,
        outputs,
        accepted=() if parity is None else parity.accepted_outputs,
        seconds=seconds,
        **({} if parity is None else {"max_drop": parity.max_drop}),
    )
    return Judged(verdict_of(report.forms[-1]), report.forms[-1].text, details=EngineParityDetails(report=report))


def not_run(plan: FinishPlan, may_run: bool) -> str:
    """Why an engine of the plan does not run here; empty where it does.

    Args:
        plan: what is finished.
        may_run: as for `compare`.
    """
    if not plan.survey.gpus:
        return f"no GPU ({plan.survey.problem})"
    gpu = plan.survey.gpus[0]
    if gpu.sm not in plan.target.sms:
        sms = ", ".join(map(str, plan.target.sms))
        return f"it is for SM {sms}, and this machine's GPU is a {gpu.name} (SM {gpu.sm})"
    return "" if may_run else "untrusted, give --trust-bundle or --key"


def _loaded(engine: Path, plan: FinishPlan) -> Model:
    from edgeformer.inference import load

    return load(engine, backend="tensorrt", plugin_library=plan.library_beside, trust_bundle=True)


def _recorded(runner: Runner, prefix: str) -> dict[str, Array]:
    """The arrays that the build recorded, by the name of the input or output."""
    from edgeformer.data.array_files import archive_names, read_array

    archive = runner.path(PARITY)
    found = {
        name[len(prefix) :]: read_array(archive, name) for name in archive_names(archive) if name.startswith(prefix)
    }
    if not found or any(not len(array) for array in found.values()):
        raise InputError("EF704", f"{PARITY} holds no {prefix.rstrip(':')} to compare with: build the bundle again")
    return found


def _run(model: Model, inputs: Mapping[str, Array], spec: EngineSpec) -> dict[str, Array]:
    """All samples through the engine, in batches that it serves; what fills up the last one is dropped."""
    import numpy as np

    samples = len(next(iter(inputs.values())))
    ranges = [spec.shapes[name] for name in inputs]
    size, least = (min(shapes.opt[0] for shapes in ranges), max(shapes.min[0] for shapes in ranges))
    parts: list[dict[str, Array]] = []
    for start in range(0, samples, size):
        feeds = {name: array[start : start + size] for name, array in inputs.items()}
        count = len(next(iter(feeds.values())))
        missing = max(0, least - count)
        padded = {name: np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for name, part in feeds.items()}
        parts.append({name: np.asarray(output)[:count] for name, output in model.run(padded).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _with_less_memory(runner: Runner, plan: FinishPlan, stage: str) -> tuple[EngineBuild, list[str]]:
    """The engine, built with less workspace where memory runs out, and what was tried before.

    Raises:
        EnvironmentFault: memory runs out with the least, too.
        BuildFailed: it is not memory that the build lacks.
    """
    from edgeformer.engine.build_process import BuildFailed

    failed: list[tuple[EngineSpec, BuildFailed]] = []
    for spec, tuning in _attempts(plan):
        try:
            built = _build_once(runner, plan, stage, spec, tuning)
        except BuildFailed as error:
            if not _lacks_memory(error):
                raise (failed[0][1] if failed else error) from None
            failed.append((spec, error))
            continue
        return built, [f"memory ran out with {_limit(tried)}, built with {_limit(spec)}" for tried, _ in failed[-1:]]
    first = failed[0][1]
    if all(_NO_KERNEL.search(str(error)) and not _OUT_OF_MEMORY.search(str(error)) for _, error in failed):
        raise first
    free = "" if plan.memory is None else f" {plan.memory.available / 1e9:.1f} GB were free when it began."
    raise EnvironmentFault(
        "EF932",
        f"memory ran out building the engine with {', '.join(_limit(spec) for spec, _ in failed)}.{free} Close other "
        "programs (the desktop: sudo systemctl isolate multi-user.target), add swap (docs/finish.md), or build the "
        f"bundle for a smaller batch. The first attempt ended so: {first}",
    )


def _attempts(plan: FinishPlan) -> Iterator[tuple[EngineSpec, int | None]]:
    """What to try, one after the other: the build's limits, and the memory in which kernels are tried out."""
    tuning = plan.tuning_memory_bytes
    yield plan.spec, tuning
    for limit in _FALL_BACK:
        if plan.spec.workspace_bytes is None or limit < plan.spec.workspace_bytes:
            tuning = None if tuning is None else tuning // 2
            yield plan.spec.model_copy(update={"workspace_bytes": limit}), tuning


def _lacks_memory(error: BuildFailed) -> bool:
    from edgeformer.engine.build_process import BuildKilled

    text = str(error)
    return isinstance(error, BuildKilled) or any(pattern.search(text) for pattern in (_OUT_OF_MEMORY, _NO_KERNEL))


def _limit(spec: EngineSpec) -> str:
    limit = spec.workspace_bytes
    return "no limit of the workspace" if limit is None else f"{limit / 2**20:.0f} MiB of workspace"


def _build_once(runner: Runner, plan: FinishPlan, stage: str, spec: EngineSpec, tuning: int | None) -> EngineBuild:
    from edgeformer.engine.build_process import compile_file

    arguments: dict[str, Any] = {
        "target": plan.target,
        "library": plan.library,
        # The whole of typed.onnx is parsed where the plugin is not used; nothing is stripped of it then.
        "has_body": False,
        "tuning_memory_bytes": tuning,
        "progress": runner.progress(stage),
    }
    if plan.target.flavour != "tensorrt":
        return compile_file(lambda _: plan.graph, spec, **arguments)
    cache = runner.path(TIMING_CACHE)
    older = plan.bundle / TIMING_CACHE
    if plan.trusted and TIMING_CACHE in plan.manifest.files and not cache.exists():
        shutil.copyfile(older, cache)
    try:
        return compile_file(lambda _: plan.graph, spec, timing_cache=cache, **arguments)
    except InputError as error:
        if error.code != "EF629":
            raise
        cache.unlink(missing_ok=True)  # of another GPU or TensorRT
        return compile_file(lambda _: plan.graph, spec, timing_cache=cache, **arguments)
