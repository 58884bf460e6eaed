"""From a typed ONNX model to a TensorRT engine, checked: does it run the plugin as often as the graph has the op?

The build itself runs in a child process (`edgeformer.engine.worker` says why).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgeformer.artifacts import sha256_of_bytes, temporary_folder, write_bytes, write_text
from edgeformer.engine.compiler import BuildFailed
from edgeformer.engine.profiles import BatchProfile, ShapeRange, shape_ranges
from edgeformer.engine.targets import Target, can_build, check_embedding
from edgeformer.engine.worker import JOB_FILE
from edgeformer.errors import EdgeformerError, EnvironmentFault, GateMissed, InputError
from edgeformer.graph.onnx_files import model_bytes
from edgeformer.graph.protos import subgraphs
from edgeformer.machine.backends import require_backend
from edgeformer.machine.plugin_library import PluginLibrary, require_plugin_library
from edgeformer.ops.bi_level_routing_attention import is_op, with_function
from edgeformer.progress import Progress
from edgeformer.records.engine import BuildJob, Compiled, EngineReport
from edgeformer.supervision.limits import limited

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
    "write_engine",
]

SIDECAR_SUFFIX = ".json"
_ERRORS: dict[str, type[EdgeformerError]] = {
    error.__name__: error for error in (InputError, GateMissed, EnvironmentFault, BuildFailed)
}
_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}
# A protobuf message, which an ONNX file without external data is, ends at 2 GiB.
_LARGEST_MODEL = 2**31 - 1
_STDERR_SHOWN = 2000

log = logging.getLogger("edgeformer.tensorrt")
# The error that is raised holds what matters; without a handler, logging would print warnings to the terminal.
log.addHandler(logging.NullHandler())


class BuildCancelled(EdgeformerError):
    """The progress callback asked to stop. Nothing was written."""


@dataclass(frozen=True)
class EngineBuild:
    """A serialized engine and its report."""

    serialized: bytes
    report: EngineReport


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
    shapes = shape_ranges(model, batch, input_shapes)
    op_nodes = count_op_nodes(model.graph)
    if embed_plugin and not use_plugin:
        raise InputError(
            "EF104",
            "embed_plugin=True with use_plugin=False leaves no plugin to embed: set use_plugin=True, or embed none",
        )
    can_build(target, raise_error=True)
    backend = require_backend(target.flavour, target.tensorrt_minimum, target.tensorrt_below)
    library = _plugin_library(target, embed_plugin) if use_plugin and op_nodes else None
    check_limits(workspace_bytes, max_aux_streams)
    if op_nodes and not use_plugin:
        model = with_function(model)
    caching = timing_cache if target.flavour == "tensorrt" else None
    try:
        with temporary_folder("engine") as folder:
            job = BuildJob(
                model=_write_model(model, folder / "model.onnx"),
                engine=folder / "model.engine",
                flavour=target.flavour,
                sms=target.sms,
                ahead_of_time=target.built == "anywhere",
                shapes=shapes,
                op_nodes=op_nodes,
                use_plugin=use_plugin,
                plugin_library=library.path if library else None,
                embed_plugin=embed_plugin,
                cuda_graphs=cuda_graphs,
                workspace_bytes=workspace_bytes,
                max_aux_streams=max_aux_streams,
                timing_cache=caching.absolute() if caching and caching.exists() else None,
                timing_cache_out=folder / "timing.cache" if caching else None,
            )
            (folder / JOB_FILE).write_text(job.model_dump_json(), encoding="utf-8")
            compiled, peak = _run_worker(job, backend.title, progress)
            serialized = job.engine.read_bytes()
            if caching and job.timing_cache_out is not None and job.timing_cache_out.exists():
                write_bytes(caching, job.timing_cache_out.read_bytes())
    except BrokenPipeError:
        # Nothing is written to a pipe here: this one is the progress callback's.
        raise
    except OSError as error:
        raise _no_room(error) from error
    warnings = list(compiled.warnings)
    if timing_cache is not None and not caching:
        warnings.append(f"timing cache {timing_cache} neither read nor written: {backend.title} times nothing at build")
    report = {
        **compiled.model_dump(),
        "flavour": target.flavour,
        "target": target.name,
        "sm": target.sm,
        "sms": target.sms,
        "engine_sha256": sha256_of_bytes(serialized),
        "engine_bytes": len(serialized),
        "op_nodes": op_nodes,
        "plugin_version": library.metadata.version if library else None,
        "plugin_embedded": embed_plugin and library is not None,
        "cuda_graphs": cuda_graphs,
        "workspace_bytes": workspace_bytes,
        "max_aux_streams": max_aux_streams,
        "peak_host_bytes": peak,
        "profile": shapes,
        "warnings": tuple(warnings),
    }
    return EngineBuild(serialized, EngineReport.model_validate(report))


def _plugin_library(target: Target, embed: bool) -> PluginLibrary:
    """The plugin library, with kernels for every GPU that the engine is for, and fit to go into it if it shall."""
    if embed:
        check_embedding(target)
    library = require_plugin_library(target.sm)
    for sm in target.sms:
        library.require_sm(sm)
    return library


def _no_room(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        "EF602",
        f"the engine build cannot read or write its files: {error}. It needs room in {tempfile.gettempdir()}; "
        "$TMPDIR names another folder",
    )


def check_limits(workspace_bytes: int | None, max_aux_streams: int | None) -> None:
    """Check the limits for TensorRT, before the hours of work that come ahead of the engine.

    Raises:
        InputError: a limit is out of range.
    """
    if workspace_bytes is not None and workspace_bytes <= 0:
        raise InputError(
            "EF101",
            f"workspace limit {workspace_bytes} is out of range: give at least 1 byte, or leave it out for no limit",
        )
    if max_aux_streams is not None and max_aux_streams < 0:
        raise InputError(
            "EF101",
            f"{max_aux_streams} auxiliary streams: give 0 for none, or leave it out to let TensorRT choose",
        )


def write_engine(build: EngineBuild, path: str | os.PathLike[str]) -> None:
    """Write the engine, and its report beside it as ``PATH.json``, which `inspect` reads."""
    write_bytes(path, build.serialized)
    write_text(f"{os.fspath(path)}{SIDECAR_SUFFIX}", build.report.model_dump_json(indent=2) + "\n")


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


def _run_worker(job: BuildJob, title: str, progress: Progress | None) -> tuple[Compiled, int]:
    """Run a job in the folder of its engine.

    Returns:
        What the child compiled, and its peak resident memory in bytes.
    """
    # The child looks for packages where this process does, in the same order, installed or not.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    folder = job.engine.parent
    stderr_path = folder / "stderr.txt"
    with stderr_path.open("wb") as stderr:
        # A session of its own: the terminal's Ctrl-C reaches this process only, which then ends the child.
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeformer.engine.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
            env=environment,
            start_new_session=True,
            encoding="utf-8",
        )

    def kill() -> None:
        if process.poll() is None:
            # With whatever it may have started: its session is its own.
            os.killpg(process.pid, signal.SIGKILL)

    with limited("engine" if job.ahead_of_time else "timed engine", f"the engine's build in {title}", stop=kill):
        try:
            assert process.stdout is not None
            result = _follow(process.stdout, progress)
            process.wait()
        finally:
            kill()
            with process:
                pass
        if result is None:
            raise BuildFailed("EF626", _how_it_ended(process.returncode, title, stderr_path))
    if result["event"] == "failed":
        if result["error"] == OSError.__name__:
            raise OSError(result["text"])
        raise _ERRORS.get(result["error"], EdgeformerError)(result["code"], result["text"])
    return Compiled.model_validate(result["compiled"]), int(result["peak_host_bytes"])


def _follow(lines: Iterable[str], progress: Progress | None) -> dict[str, Any] | None:
    """Pass on progress and messages until the child is done.

    Returns:
        Its last event, ``done`` or ``failed``; ``None`` if it ended without one.
    """
    for line in lines:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            # The child died in the middle of a line.
            return None
        kind = event["event"]
        if kind == "message":
            log.log(_LEVELS.get(event["severity"], logging.DEBUG), "%s", event["text"])
        elif kind == "progress":
            if progress is not None and progress(event["phase"], event["done"], event["total"]) is False:
                raise BuildCancelled("EF627", "the engine build was cancelled; nothing was written")
        else:
            return event
    return None


def _how_it_ended(returncode: int, title: str, stderr_path: Path) -> str:
    """What to say of a build process that ended without its last event."""
    written = stderr_path.read_text(encoding="utf-8", errors="replace")[-_STDERR_SHOWN:].strip()
    if returncode < 0:
        end = f"was ended by {signal.Signals(-returncode).name}"
        if -returncode == signal.SIGKILL:
            end += " (as the kernel does when memory runs out)"
    else:
        end = f"ended with status {returncode}"
    return f"the build process of {title} {end} before the engine was done. " + (
        f"It wrote:\n{written}" if written else "It wrote nothing."
    )
