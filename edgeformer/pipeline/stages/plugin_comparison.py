"""What the plugin saves: one graph built into an engine with it and into one without, and the figures side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.bundle import Manifest
from edgeformer.errors import InputError

if TYPE_CHECKING:
    import onnx

    from edgeformer.engine.builder import OnProgress
    from edgeformer.engine.profiles import BatchProfile
    from edgeformer.engine.targets import Target
    from edgeformer.records.engine import EngineReport

__all__ = ["COMPARISON", "EngineFigures", "PluginComparison", "compare_bundle", "compare_plugin", "recorded_comparison"]

# Name of the stage whose details hold a comparison.
COMPARISON = "plugin-comparison"


@dataclass(frozen=True)
class EngineFigures:
    """What an engine and its build take.

    Attributes:
        parsed_layers: layers of the network that TensorRT parsed.
        engine_layers: layers of the finished engine; None where the builder lists none.
        activation_bytes: device memory for activations; None where the builder does not say.
        weight_bytes: device memory for weights, likewise.
        engine_bytes: size of the engine file.
        build_seconds: wall-clock time of parsing and building.
        peak_host_bytes: largest resident memory of the build process.
    """

    parsed_layers: int
    engine_layers: int | None
    activation_bytes: int | None
    weight_bytes: int | None
    engine_bytes: int
    build_seconds: float
    peak_host_bytes: int

    @classmethod
    def of(cls, report: EngineReport) -> EngineFigures:
        """Those of one build."""
        return cls(**{name: getattr(report, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class PluginComparison:
    """The same graph for the same target and batch sizes, built with the plugin and from the op's ONNX body."""

    with_plugin: EngineFigures
    without_plugin: EngineFigures

    def to_dict(self) -> dict[str, Any]:
        """Both sides as JSON-serialisable values, and ``activation_ratio``, with the plugin over without."""
        return {**asdict(self), "activation_ratio": self.ratio("activation_bytes")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PluginComparison:
        """The inverse of `to_dict`."""
        return cls(EngineFigures(**values["with_plugin"]), EngineFigures(**values["without_plugin"]))

    def ratio(self, figure: str) -> float | None:
        """A figure with the plugin, as a fraction of the one without; None where either is not known or zero."""
        above, below = getattr(self.with_plugin, figure), getattr(self.without_plugin, figure)
        return above / below if above is not None and below else None

    def summary(self) -> str:
        """The figures that matter most, in a line."""
        parts = [
            f"{word} {text(getattr(self.with_plugin, figure))} instead of {text(getattr(self.without_plugin, figure))}"
            for figure, word, text in _SUMMARY
        ]
        ratio = self.ratio("activation_bytes")
        return parts[0] + ("" if ratio is None else f" ({ratio:.2f}x)") + ", " + ", ".join(parts[1:])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """For a table: what, with the plugin, without it, and the ratio of the two."""
        made = []
        for figure, word, text in _ROWS:
            ratio = self.ratio(figure)
            above, below = (text(getattr(side, figure)) for side in (self.with_plugin, self.without_plugin))
            made.append((word, above, below, "" if ratio is None else f"{ratio:.2f}x"))
        return made


def _megabytes(size: int | None) -> str:
    return "not said" if size is None else f"{size / 1e6:.2f} MB"


def _count(number: int | None) -> str:
    return "not said" if number is None else str(number)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


_Row = tuple[str, str, Callable[[Any], str]]
_ROWS: tuple[_Row, ...] = (
    ("parsed_layers", "parsed layers", _count),
    ("engine_layers", "engine layers", _count),
    ("activation_bytes", "activation memory", _megabytes),
    ("weight_bytes", "weight memory", _megabytes),
    ("engine_bytes", "engine file", _megabytes),
    ("build_seconds", "build", _seconds),
    ("peak_host_bytes", "host memory", _megabytes),
)
_SUMMARY: tuple[_Row, ...] = (
    ("activation_bytes", "activations", _megabytes),
    ("parsed_layers", "parsed layers", _count),
    ("build_seconds", "built in", _seconds),
)


def compare_plugin(
    model: onnx.ModelProto,
    report: EngineReport,
    *,
    target: Target,
    batch: BatchProfile,
    on_progress: OnProgress | None = None,
) -> PluginComparison:
    """Build the side that was not built: with the plugin if ``report`` is of an engine without it, or without it.

    Args:
        model: the typed graph that the engine was built from.
        report: that build's report; the other side is built within the same limits.
        target: its target.
        batch: its batch sizes.
        on_progress: as `edgeformer.engine.builder.build_engine` takes it.

    Raises:
        InputError: the graph has no op node, so that there is nothing to compare.
        EnvironmentFault: the plugin library is missing.
        BuildFailed: TensorRT does not build the other side.
    """
    from edgeformer.engine.builder import build_engine

    if not report.op_nodes:
        raise InputError("the graph has no op node: with and without the plugin it is the same engine")
    has_plugin = bool(report.plugin.in_network)
    other = build_engine(
        model,
        target=target,
        batch=batch,
        use_plugin=not has_plugin,
        workspace_bytes=report.workspace_bytes,
        max_aux_streams=report.max_aux_streams,
        on_progress=on_progress,
    )
    sides = (EngineFigures.of(report), EngineFigures.of(other.report))
    return PluginComparison(*(sides if has_plugin else reversed(sides)))


def recorded_comparison(manifest: Manifest) -> PluginComparison | None:
    """The comparison that a bundle's build made, if it made one."""
    stage = manifest.stage(COMPARISON)
    return None if stage is None or not stage.details else PluginComparison.from_dict(stage.details)


def compare_bundle(bundle: Path, manifest: Manifest, *, on_progress: OnProgress | None = None) -> PluginComparison:
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
    from edgeformer.pipeline.runner import ENGINE, TYPED
    from edgeformer.records.engine import EngineReport

    stage = manifest.stage("engine")
    if stage is None or ENGINE not in manifest.files or manifest.batch is None:
        raise InputError(f"{bundle} holds no engine, so there is nothing to compare: build it where the target allows")
    smallest, usual, largest = manifest.batch
    return compare_plugin(
        load_model(bundle / TYPED),
        EngineReport.model_validate(stage.details),
        target=get_target(manifest.target.name),
        batch=BatchProfile(min=smallest, opt=usual, max=largest),
        on_progress=on_progress,
    )
