"""``plugin-comparison``: what the plugin saves: the same graph built with it and without, and both sides' figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import Manifest
from edgeformer.bundle.details import EngineDetails, PluginComparisonDetails
from edgeformer.bundle.files import ENGINE, ENGINE_REPORT, TYPED
from edgeformer.errors import EdgeformerError, InputError
from edgeformer.pipeline.plan import EnginePlan
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.records.engine import EngineFigures, EngineReport, PluginComparison

if TYPE_CHECKING:
    import onnx

    from edgeformer.engine.profiles import BatchProfile
    from edgeformer.engine.targets import Target
    from edgeformer.progress import Progress

__all__ = ["compare_bundle", "compare_plugin", "recorded_comparison", "run"]

_NAME = "plugin-comparison"


def run(runner: Runner, plan: EnginePlan) -> None:
    """Build the engine without the plugin as well (or with it, where it is without), and record what both take."""
    from edgeformer.machine.plugin_library import find_plugin_library

    library = find_plugin_library()
    try:
        runner.run(
            _NAME,
            [],
            lambda: _compare(runner, plan),
            {
                "engine": runner.sha256(ENGINE),
                "plugin": None if library is None else sha256_of_file(library.path),
                **plan.limits,
            },
        )
    except EdgeformerError as fault:
        # The engine that was asked for is there, and right: only the comparison is missing.
        runner.skip(_NAME, f"the other engine was not built: {str(fault).splitlines()[0]}")


def _compare(runner: Runner, plan: EnginePlan) -> Judged:
    from edgeformer.graph.onnx_files import load_model

    comparison = compare_plugin(
        load_model(runner.path(TYPED)),
        EngineReport.model_validate_json(runner.path(ENGINE_REPORT).read_text(encoding="utf-8")),
        target=plan.target,
        batch=plan.batch,
        progress=runner.progress(_NAME),
    )
    return Judged(note=comparison.summary(), details=PluginComparisonDetails(comparison=comparison))


def compare_plugin(
    model: onnx.ModelProto,
    report: EngineReport,
    *,
    target: Target,
    batch: BatchProfile,
    progress: Progress | None = None,
) -> PluginComparison:
    """Build the side that was not built: with the plugin if ``report`` is of an engine without it, or without it.

    Args:
        model: the typed graph that the engine was built from.
        report: that build's report; the other side is built within the same limits.
        target: its target.
        batch: its batch sizes.
        progress: as `edgeformer.engine.builder.build_engine` takes it.

    Raises:
        InputError: the graph has no op node, so that there is nothing to compare.
        EnvironmentFault: the plugin library is missing.
        BuildFailed: TensorRT does not build the other side.
    """
    from edgeformer.engine.builder import build_engine

    if not report.op_nodes:
        raise InputError("EF707", "the graph has no op node: with and without the plugin it is the same engine")
    has_plugin = bool(report.plugin.in_network)
    other = build_engine(
        model,
        target=target,
        batch=batch,
        use_plugin=not has_plugin,
        workspace_bytes=report.workspace_bytes,
        max_aux_streams=report.max_aux_streams,
        cuda_graphs=report.cuda_graphs,
        progress=progress,
    )
    sides = (EngineFigures.of(report), EngineFigures.of(other.report))
    with_plugin, without = sides if has_plugin else reversed(sides)
    return PluginComparison(with_plugin=with_plugin, without_plugin=without)


def recorded_comparison(manifest: Manifest) -> PluginComparison | None:
    """The comparison that a bundle's build made, if it made one."""
    details = manifest.details(PluginComparisonDetails)
    return None if details is None else details.comparison


def compare_bundle(bundle: Path, manifest: Manifest, *, progress: Progress | None = None) -> PluginComparison:
    """The comparison of a bundle's engine: the recorded one, or a new one; the bundle itself is not changed.

    Raises:
        InputError: the bundle has no engine, or no op node.
        EnvironmentFault: this machine cannot build the other side.
        BuildFailed: TensorRT does not build it.
    """
    recorded = recorded_comparison(manifest)
    if recorded is not None:
        return recorded
    from edgeformer.engine.builder import BatchProfile
    from edgeformer.engine.targets import get_target
    from edgeformer.graph.onnx_files import load_model

    details = manifest.details(EngineDetails)
    if details is None or details.report is None or manifest.batch is None:
        raise InputError(
            "EF707", f"{bundle} holds no engine, so there is nothing to compare: build it where the target allows"
        )
    smallest, usual, largest = manifest.batch
    return compare_plugin(
        load_model(bundle / TYPED),
        details.report,
        target=get_target(manifest.target.name),
        batch=BatchProfile(min=smallest, opt=usual, max=largest),
        progress=progress,
    )
