"""The build of an engine: the job for the child process that does it, the report on it, and two builds side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from edgeformer.records.base import Record, with_sms
from edgeformer.records.terms import Flavour

__all__ = [
    "BuildJob",
    "Compiled",
    "EngineFigures",
    "EngineReport",
    "EngineSpec",
    "PluginComparison",
    "PluginEvidence",
    "ShapeRange",
    "TensorInfo",
]


class ShapeRange(Record):
    """Smallest, most frequent and largest shape of one input, batch axis included.

    Raises:
        ValueError: the three differ in rank, or a dimension is not 1 <= min <= opt <= max.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @model_validator(mode="after")
    def _is_ordered(self) -> ShapeRange:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"shapes of different rank: {self}")
        if not all(1 <= low <= middle <= high for low, middle, high in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError(f"every dimension needs 1 <= smallest <= most frequent <= largest: {self}")
        return self

    @classmethod
    def fixed(cls, shape: tuple[int, ...]) -> ShapeRange:
        """The range that holds one shape."""
        return cls(min=shape, opt=shape, max=shape)

    @property
    def is_fixed(self) -> bool:
        """Whether one shape is all there is."""
        return self.min == self.max

    def __str__(self) -> str:
        shapes = ["x".join(map(str, shape)) for shape in (self.min, self.opt, self.max)]
        return shapes[0] if self.is_fixed else " .. ".join(shapes)


class EngineSpec(Record):
    """What an engine is built with besides its graph's file, its target and the plugin library.

    Attributes:
        shapes: range of every input.
        op_nodes: op nodes in the graph.
        use_plugin: run them with the plugin; otherwise from their ONNX body.
        embed_plugin: put the plugin library into the engine.
        workspace_bytes: limit of the workspace; ``None`` for none.
        max_aux_streams: limit of auxiliary streams; ``None`` leaves it to TensorRT.
        cuda_graphs: the engine can be captured into a CUDA graph.
    """

    shapes: dict[str, ShapeRange]
    op_nodes: int
    use_plugin: bool
    embed_plugin: bool
    workspace_bytes: int | None
    max_aux_streams: int | None
    cuda_graphs: bool


class BuildJob(Record):
    """One build, as the child reads it.

    Attributes:
        model: the ONNX file.
        engine: where the child puts the serialized engine.
        flavour: TensorRT flavour.
        sms: compute capabilities, times ten, that the engine is for.
        ahead_of_time: build for ``sms`` whatever GPU is here, instead of for the GPU that is here.
        shapes: range of every input.
        op_nodes: op nodes in the graph.
        use_plugin: run them with the plugin; otherwise from their ONNX body.
        has_body: the file has the op's body, which a parser takes unless it is told or made not to.
        plugin_library: the library to load, if any.
        embed_plugin: put the plugin library into the engine, so that one file is enough to run it.
        cuda_graphs: the engine can be captured into a CUDA graph.
        workspace_bytes: limit of the workspace pool; ``None`` leaves TensorRT's own, all of the GPU's memory.
        tuning_memory_bytes: limit of the memory in which kernels are tried out, on a board that of the host, too;
            ``None`` leaves it to TensorRT.
        max_aux_streams: streams that branches may run on beside the caller's; ``None`` leaves it to TensorRT.
        timing_cache: file to start from; ``None`` without one.
        timing_cache_out: where the child puts the timing cache; ``None`` if none is wanted.
    """

    model: Path
    engine: Path
    flavour: Flavour
    sms: tuple[int, ...]
    ahead_of_time: bool
    shapes: dict[str, ShapeRange]
    op_nodes: int
    use_plugin: bool
    has_body: bool = True
    plugin_library: Path | None
    embed_plugin: bool
    cuda_graphs: bool
    workspace_bytes: int | None
    tuning_memory_bytes: int | None = None
    max_aux_streams: int | None
    timing_cache: Path | None
    timing_cache_out: Path | None


class TensorInfo(Record):
    """An input or output of the engine; ``-1`` in ``shape`` is a dynamic axis."""

    name: str
    io: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]


class PluginEvidence(Record):
    """How many plugin layers there are, and how each count was taken.

    Attributes:
        in_network: plugin layers of the parsed network definition.
        in_engine: plugin layers in the builder's own listing of the finished engine; ``None`` where it gave none.
        source: the evidence in words.
    """

    in_network: int
    in_engine: int | None
    source: str


class Compiled(Record):
    """What the child sends back besides the engine file; `EngineReport` explains the fields."""

    tensorrt_version: str
    parsed_layers: int
    engine_layers: int | None
    plugin: PluginEvidence
    activation_bytes: int | None
    weight_bytes: int | None
    build_seconds: float
    tensors: tuple[TensorInfo, ...]
    warnings: tuple[str, ...]


class EngineReport(Compiled):
    """What is known about a built engine, without a GPU.

    Attributes:
        flavour: TensorRT flavour.
        tensorrt_version: its version.
        target: name of the target.
        sm: compute capability times ten; the lowest of several.
        sms: compute capabilities, times ten, that the engine is for; left out by versions that built for one alone.
        engine_sha256: SHA-256 of the serialized engine.
        engine_bytes: its size.
        parsed_layers: layers of the network definition after parsing.
        engine_layers: layers of the finished engine in the builder's own listing; ``None`` if it gave none.
        op_nodes: op nodes of the graph.
        plugin: plugin layers, and the evidence.
        plugin_version: version of the plugin library; ``None`` if no plugin was used.
        plugin_embedded: the plugin library is in the engine, and need not be loaded before it.
        cuda_graphs: it was built to be captured into a CUDA graph.
        workspace_bytes: limit of the workspace it was built with; ``None`` for none.
        max_aux_streams: limit of auxiliary streams it was built with; ``None`` for none.
        activation_bytes: device memory for activations, from the builder's log; ``None`` if the log does not have it.
        weight_bytes: device memory for weights, from the same place.
        build_seconds: wall-clock time of parsing and building.
        peak_host_bytes: largest resident memory of the build process.
        profile: range of every input.
        tensors: inputs and outputs.
        warnings: TensorRT's warnings, each once.
    """

    flavour: Flavour
    target: str
    sm: int
    sms: tuple[int, ...] = ()
    engine_sha256: str
    engine_bytes: int
    op_nodes: int
    plugin_version: str | None
    plugin_embedded: bool = False
    cuda_graphs: bool = False
    workspace_bytes: int | None = None
    max_aux_streams: int | None = None
    peak_host_bytes: int
    profile: dict[str, ShapeRange]

    _sms = model_validator(mode="before")(with_sms)


class EngineFigures(Record):
    """The size and cost of an engine and its build.

    Attributes:
        parsed_layers: layers of the network that TensorRT parsed.
        engine_layers: layers of the finished engine; None if the builder lists none.
        activation_bytes: device memory for activations; None if the builder does not report it.
        weight_bytes: device memory for weights; None if the builder does not report it.
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
        """The figures of one build."""
        return cls(**{name: getattr(report, name) for name in cls.model_fields})


class PluginComparison(Record):
    """The same graph for the same target and batch sizes, built with the plugin and from the op's ONNX body."""

    with_plugin: EngineFigures
    without_plugin: EngineFigures

    def ratio(self, figure: str) -> float | None:
        """A figure with the plugin over the same figure without; None if either is unknown or zero."""
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
        """Rows of a table: the figure's name, its value with the plugin and without, and the ratio of the two."""
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
