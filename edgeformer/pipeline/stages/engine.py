"""``engine`` and ``engine-parity``: the typed graph as a TensorRT engine, run beside the exported graph on a GPU."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle.details import EngineDetails, EngineParityDetails
from edgeformer.bundle.files import ENGINE, ENGINE_REPORT, EXPORTED, FINISH, PARITY, PLUGIN_GRAPH, TYPED
from edgeformer.errors import InputError
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.plan import EnginePlan
from edgeformer.pipeline.published import without_paths
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages._library import add_library
from edgeformer.pipeline.stages._verdicts import verdict_of
from edgeformer.pipeline.stages.device_files import add_device_files

if TYPE_CHECKING:
    from edgeformer.engine.targets import Target
    from edgeformer.machine.plugin_library import PluginLibrary
    from edgeformer.records.engine import EngineSpec

__all__ = ["run", "run_parity"]

_NAME = "engine"
_PARITY = "engine-parity"


def run(runner: Runner, plan: EnginePlan) -> bool:
    """Build the engine, or say what is left to do where only the target itself can build it.

    Returns:
        Whether the bundle has an engine now.
    """
    from edgeformer.engine.targets import can_build
    from edgeformer.machine.backends import find_backend
    from edgeformer.machine.plugin_library import find_device_library, find_plugin_library

    target = plan.target
    here = can_build(target)
    if not here:
        library, missing = add_device_files(
            runner, target, _NAME, use_plugin=plan.use_plugin, cross_compiling=plan.cross_compile
        )
        _graph_for_parsers(runner, plan)
        spec, reason = _spec_for_device(runner, plan)
        steps = (*(f"get for the bundle: {line}" for line in missing), _left_to_do(plan, library, reason))
        runner.skip(_NAME, here.reason, EngineDetails(spec=spec, left_to_do=steps))
        return False
    library = find_plugin_library() if plan.use_plugin else None
    served = library
    left_to_do = [target.note] if target.note and plan.use_plugin else []
    if plan.use_plugin and target.cpu != platform.machine():
        # TensorRT-RTX builds it here all the same; what the engine needs where it runs is another library.
        served = find_device_library(target.cpu, target.sm)
        left_to_do.append(_library_to_have(target, served))
    if not plan.embed_plugin:
        add_library(runner, served, target.flavour)
    _graph_for_parsers(runner, plan)
    backend = find_backend(target.flavour)
    assert backend is not None  # can_build saw it
    runner.run(
        _NAME,
        [ENGINE, ENGINE_REPORT],
        lambda: _build(runner, plan, tuple(left_to_do)),
        {
            "typed": runner.sha256(TYPED),
            "target": target.model_dump(mode="json"),
            "batch": str(plan.batch),
            "tensorrt": backend.version,
            "plugin": [None if one is None else sha256_of_file(one.path) for one in (library, served)],
            "embed_plugin": plan.embed_plugin,
            "cuda_graphs": plan.cuda_graphs,
            **plan.limits,
        },
    )
    return True


def run_parity(
    runner: Runner, plan: EnginePlan, inputs: ParityInputs, *, max_drop: float, accepted: tuple[str, ...]
) -> None:
    """Run the engine on this machine's GPU against the exported graph, or record why it does not run."""
    from edgeformer.ops.library_files import LIBRARY_NAME
    from edgeformer.verify import Form, verify_forms

    plugin = runner.path(LIBRARY_NAME)
    engine = Form.from_engine(
        "engine",
        runner.path(ENGINE),
        plan.precision,
        plugin_library=plugin if plugin.is_file() else None,
        flavour=plan.target.flavour,
        sms=plan.target.sms,
        trusted=True,  # it was made here
        embedded_plugin=plan.embed_plugin,
    )
    if not engine.runs:
        runner.skip(_PARITY, engine.reason)
        return

    def compare() -> Judged:
        forms = [Form.from_onnx("exported", runner.path(EXPORTED)), engine]
        report = verify_forms(forms, inputs.batches, max_drop=max_drop, accepted=accepted)
        return Judged(verdict_of(report.forms[-1]), report.forms[-1].text, details=EngineParityDetails(report=report))

    # What a GPU computes is never taken from an older bundle.
    runner.run(_PARITY, [], compare, {"engine": runner.sha256(ENGINE)}, always=True)


def _build(runner: Runner, plan: EnginePlan, left_to_do: tuple[str, ...]) -> Judged:
    from edgeformer.engine.builder import build_engine, write_engine
    from edgeformer.graph.onnx_files import load_model

    built = build_engine(
        load_model(runner.path(TYPED)),
        target=plan.target,
        batch=plan.batch,
        use_plugin=plan.use_plugin,
        embed_plugin=plan.embed_plugin,
        workspace_bytes=plan.workspace_bytes,
        max_aux_streams=plan.max_aux_streams,
        cuda_graphs=plan.cuda_graphs,
        progress=runner.progress(_NAME),
    )
    report = without_paths(built.report)
    write_engine(replace(built, report=report), runner.path(ENGINE))
    details = EngineDetails(report=report, spec=_spec(runner, plan), left_to_do=left_to_do)
    if not plan.use_plugin:
        return Judged(note="built from the op's ONNX body, without the plugin", details=details)
    gate = f"{report.plugin.in_network} plugin layers for {report.op_nodes} op nodes"
    return Judged("passed", gate, details=details)


def _graph_for_parsers(runner: Runner, plan: EnginePlan) -> None:
    """Write what TensorRT's parser makes a network with the plugin from: the typed graph without the op's body.

    A parser takes the body where there is one, although the plugin is loaded, unless it is told otherwise, and TensorRT
    before 10.15 cannot be told.
    """
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.ops.bi_level_routing_attention import is_op, without_function

    if not plan.use_plugin:
        return
    model = load_model(runner.path(TYPED))
    if any(map(is_op, model.graph.node)):
        save_model(without_function(model), runner.path(PLUGIN_GRAPH))


def _library_to_have(target: Target, library: PluginLibrary | None) -> str:
    """What the target's machine has to have of the plugin library, which is in the bundle or not there yet."""
    if library is not None:
        return f"check that the {target.description} has CUDA {library.metadata.cuda}, for {library.path.name}"
    return (
        f"on the {target.description}, build the plugin library for SM {target.sm} (docs/building.md; one "
        "cross-compiled before comes with the bundle)"
    )


def _spec(runner: Runner, plan: EnginePlan) -> EngineSpec:
    """What the engine is built with, for a machine that finishes the bundle without onnx."""
    from edgeformer.engine.builder import engine_spec
    from edgeformer.graph.onnx_files import load_model

    return engine_spec(
        load_model(runner.path(TYPED)),
        plan.batch,
        use_plugin=plan.use_plugin,
        embed_plugin=plan.embed_plugin,
        workspace_bytes=plan.workspace_bytes,
        max_aux_streams=plan.max_aux_streams,
        cuda_graphs=plan.cuda_graphs,
    )


def _spec_for_device(runner: Runner, plan: EnginePlan) -> tuple[EngineSpec | None, str]:
    """As `_spec`; where the graph leaves open what shapes the engine is for, nothing, and which those are."""
    try:
        return _spec(runner, plan), ""
    except InputError as error:
        return None, str(error)


def _left_to_do(plan: EnginePlan, library: PluginLibrary | None, no_spec: str) -> str:
    """What a device target's own machine still has to do."""
    target = plan.target
    if no_spec:
        return f"build again so that the engine can be built: {no_spec}"
    cuda = f", CUDA {library.metadata.cuda} for {library.path.name}" if library is not None else ""
    return (
        f"on the {target.description}, run {FINISH} in the bundle: it builds the engine with the TensorRT there "
        f"({target.tensorrt_minimum} or newer, below {target.tensorrt_below}{cuda}) and compares its outputs with "
        f"those recorded in {PARITY}"
    )
