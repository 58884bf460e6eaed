"""From a typed ONNX model to a TensorRT engine, checked: does it run the plugin as often as the graph has the op?

The build itself runs in a child process (`edgeformer.engine.build_process`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from edgeformer.engine.build_process import (
    SIDECAR_SUFFIX,
    BuildCancelled,
    BuildFailed,
    EngineBuild,
    compile_file,
    write_engine,
)
from edgeformer.engine.limits import check_limits
from edgeformer.engine.profiles import BatchProfile, ShapeRange, shape_ranges
from edgeformer.engine.targets import Target, can_build, check_embedding
from edgeformer.errors import InputError
from edgeformer.graph.onnx_files import model_bytes
from edgeformer.graph.protos import subgraphs
from edgeformer.machine.plugin_library import PluginLibrary, require_plugin_library
from edgeformer.ops.bi_level_routing_attention import is_op, with_function
from edgeformer.progress import Progress
from edgeformer.records.engine import EngineReport, EngineSpec

__all__ = [
    "SIDECAR_SUFFIX",
    "BatchProfile",
    "BuildCancelled",
    "BuildFailed",
    "EngineBuild",
    "EngineReport",
    "ShapeRange",
    "build_engine",
    "check_limits",
    "count_op_nodes",
    "engine_spec",
    "write_engine",
]

# A protobuf message, which an ONNX file without external data is, ends at 2 GiB.
_LARGEST_MODEL = 2**31 - 1


def build_engine(
    model: onnx.ModelProto,
    *,
    target: Target,
    batch: BatchProfile,
    input_shapes: Mapping[str, ShapeRange] | None = None,
    use_plugin: bool = True,
    workspace_bytes: int | None = None,
    max_aux_streams: int | None = None,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    embed_plugin: bool = False,
    cuda_graphs: bool = False,
) -> EngineBuild:
    """Build an engine; strongly typed, so every type is the graph's.

    Args:
        model: typed graph, with op nodes and, for ``use_plugin=False``, the op's function or none (it is added).
        target: machine to build for.
        batch: batch sizes to serve.
        input_shapes: shapes of inputs with further dynamic axes; see `edgeformer.engine.profiles.shape_ranges`.
        use_plugin: run op nodes with the fused kernels of the plugin library; otherwise from their ONNX body.
        workspace_bytes: limit of the workspace, bytes; ``None`` for no limit.
        max_aux_streams: streams that branches may run on beside the caller's, each with scratch memory of its own;
            ``None`` leaves their number to TensorRT.
        timing_cache: file with TensorRT's kernel timings, read if it exists and written afterwards. TensorRT-RTX times
            nothing when it builds, so for it the file is neither read nor written, and the report has a warning.
        progress: called with the builder's phases; returning ``False`` cancels the build.
        embed_plugin: put the plugin library into the engine, so that one file is enough to run it; otherwise the
            library has to be loaded before the engine is. The engine grows by the library's size.
        cuda_graphs: build an engine that a program can capture into a CUDA graph. One of TensorRT-RTX then takes memory
            from the program alone; ask its context's ``is_stream_capturable`` before the capture. One of TensorRT can
            be captured as it is.

    Raises:
        InputError: the shapes do not fit the graph, TensorRT cannot parse the model, the timing cache is of another
            GPU or version, or ``embed_plugin`` is set without ``use_plugin`` or for another processor than this one.
        EnvironmentFault: TensorRT, the plugin library, or the GPU that the target needs is missing, or the build took
            longer than its limit (`edgeformer.supervision.limits`).
        GateMissed: the engine does not have one plugin layer for each op node.
        BuildFailed: TensorRT cannot build the network, or its process ended.
        BuildCancelled: ``progress`` returned ``False``.
    """
    spec = engine_spec(
        model,
        batch,
        input_shapes,
        use_plugin=use_plugin,
        embed_plugin=embed_plugin,
        workspace_bytes=workspace_bytes,
        max_aux_streams=max_aux_streams,
        cuda_graphs=cuda_graphs,
    )
    if embed_plugin and not use_plugin:
        raise InputError(
            "EF104",
            "embed_plugin=True with use_plugin=False leaves no plugin to embed: set use_plugin=True, or embed none",
        )
    can_build(target, raise_error=True)
    library = _plugin_library(target, embed_plugin) if use_plugin and spec.op_nodes else None
    check_limits(workspace_bytes, max_aux_streams)
    whole = model if use_plugin or not spec.op_nodes else with_function(model)
    return compile_file(
        lambda path: _write_model(whole, path),
        spec,
        target=target,
        library=library,
        timing_cache=timing_cache,
        progress=progress,
    )


def engine_spec(
    model: onnx.ModelProto,
    batch: BatchProfile,
    input_shapes: Mapping[str, ShapeRange] | None = None,
    *,
    use_plugin: bool,
    embed_plugin: bool,
    workspace_bytes: int | None,
    max_aux_streams: int | None,
    cuda_graphs: bool,
) -> EngineSpec:
    """What an engine of ``model`` is built with, for whoever builds it without onnx. Arguments as for `build_engine`.

    Raises:
        InputError: the shapes do not fit the graph.
    """
    return EngineSpec(
        shapes=shape_ranges(model, batch, input_shapes),
        op_nodes=count_op_nodes(model.graph),
        use_plugin=use_plugin,
        embed_plugin=embed_plugin,
        workspace_bytes=workspace_bytes,
        max_aux_streams=max_aux_streams,
        cuda_graphs=cuda_graphs,
    )


def _plugin_library(target: Target, embed: bool) -> PluginLibrary:
    """The plugin library, with kernels for every GPU that the engine is for, and fit to go into it if it shall."""
    if embed:
        check_embedding(target)
    library = require_plugin_library(target.sm)
    for sm in target.sms:
        library.require_sm(sm)
    return library


def count_op_nodes(graph: onnx.GraphProto) -> int:
    """Nodes of the op in a graph and in the bodies of its control-flow nodes."""
    inner = sum(count_op_nodes(body) for node in graph.node for body in subgraphs(node))
    return inner + sum(is_op(node) for node in graph.node)


def _write_model(model: onnx.ModelProto, path: Path) -> Path:
    size = model_bytes(model)
    if size > _LARGEST_MODEL:
        raise InputError(
            "EF623", f"the model is {size / 2**30:.1f} GiB; TensorRT takes it as one file, of at most 2 GiB"
        )
    path.write_bytes(model.SerializeToString())
    return path
