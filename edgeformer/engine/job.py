"""What passes between `edgeformer.engine.builder` and its child process: the job, and the report on it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeformer.engine.profiles import ShapeRange
from edgeformer.machine.backends import Flavour

__all__ = ["BuildJob", "Compiled", "EngineReport", "PluginEvidence", "TensorInfo"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BuildJob(_Record):
    """One build, as the child reads it.

    Attributes:
        model: the ONNX file.
        engine: where the child puts the serialised engine.
        flavour: TensorRT flavour.
        sm: compute capability times ten.
        ahead_of_time: build for ``sm`` whatever GPU is here, instead of for the GPU that is here.
        shapes: range of every input.
        op_nodes: op nodes in the graph.
        use_plugin: take the plugin for them; otherwise their ONNX body.
        plugin_library: the library to load, if any.
        embed_plugin: put the plugin library into the engine, so that one file is enough to run it.
        workspace_bytes: limit of the workspace pool; ``None`` leaves TensorRT's own, all of the GPU's memory.
        max_aux_streams: streams that branches may run on beside the caller's; ``None`` leaves it to TensorRT.
        timing_cache: file to start from; ``None`` without one.
        timing_cache_out: where the child puts the timing cache; ``None`` if none is wanted.
    """

    model: Path
    engine: Path
    flavour: Flavour
    sm: int
    ahead_of_time: bool
    shapes: dict[str, ShapeRange]
    op_nodes: int
    use_plugin: bool
    plugin_library: Path | None
    embed_plugin: bool
    workspace_bytes: int | None
    max_aux_streams: int | None
    timing_cache: Path | None
    timing_cache_out: Path | None


class TensorInfo(_Record):
    """An input or output of the engine; ``-1`` in ``shape`` is a dynamic axis."""

    name: str
    io: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]


class PluginEvidence(_Record):
    """How many plugin layers there are, and how each count was taken.

    Attributes:
        in_network: plugin layers of the parsed network definition.
        in_engine: plugin layers in the builder's own listing of the finished engine; ``None`` where it gave none.
        source: the evidence in words.
    """

    in_network: int
    in_engine: int | None
    source: str


class Compiled(_Record):
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
    """What is known of a built engine, without a GPU.

    Attributes:
        flavour: TensorRT flavour.
        tensorrt_version: its version.
        target: name of the target.
        sm: compute capability times ten.
        engine_sha256: SHA-256 of the serialised engine.
        engine_bytes: its size.
        parsed_layers: layers of the network definition after parsing.
        engine_layers: layers of the finished engine in the builder's own listing; ``None`` if it gave none.
        op_nodes: op nodes of the graph.
        plugin: plugin layers, and the evidence.
        plugin_version: version of the plugin library; ``None`` if no plugin was taken.
        plugin_embedded: the plugin library is in the engine, and need not be loaded before it.
        workspace_bytes: limit of the workspace it was built with; ``None`` for none.
        max_aux_streams: limit of auxiliary streams, likewise.
        activation_bytes: device memory for activations, as the builder's log gives it; ``None`` if it gave none.
        weight_bytes: device memory for weights, in the same way.
        build_seconds: wall-clock time of parsing and building.
        peak_host_bytes: largest resident memory of the build process.
        profile: range of every input.
        tensors: inputs and outputs.
        warnings: TensorRT's warnings, each once.
    """

    flavour: Flavour
    target: str
    sm: int
    engine_sha256: str
    engine_bytes: int
    op_nodes: int
    plugin_version: str | None
    plugin_embedded: bool = False
    workspace_bytes: int | None = None
    max_aux_streams: int | None = None
    peak_host_bytes: int
    profile: dict[str, ShapeRange]
