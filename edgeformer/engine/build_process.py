"""An engine from a model's file: the build in a child process, and the report on it. Needs no onnx.

`edgeformer.engine.worker`, which is the child, says why there is one. A device that finishes a bundle begins here, with
what the machine that made the bundle knew of the graph (`edgeformer.records.engine.EngineSpec`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.artifacts import sha256_of_bytes, temporary_folder, write_bytes, write_text
from edgeformer.engine.compiler import BuildFailed
from edgeformer.engine.targets import Target
from edgeformer.engine.worker import JOB_FILE
from edgeformer.errors import EdgeformerError, EnvironmentFault, GateMissed, InputError
from edgeformer.machine.backends import require_backend
from edgeformer.machine.plugin_library import PluginLibrary
from edgeformer.progress import Progress
from edgeformer.records.engine import BuildJob, Compiled, EngineReport, EngineSpec
from edgeformer.supervision.limits import limited

__all__ = [
    "SIDECAR_SUFFIX",
    "BuildCancelled",
    "BuildFailed",
    "BuildKilled",
    "EngineBuild",
    "compile_file",
    "write_engine",
]

SIDECAR_SUFFIX = ".json"
_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}
_STDERR_SHOWN = 2000

log = logging.getLogger("edgeformer.tensorrt")
# The error that is raised holds what matters; without a handler, logging would print warnings to the terminal.
log.addHandler(logging.NullHandler())


class BuildCancelled(EdgeformerError):
    """The progress callback asked to stop. Nothing was written."""


class BuildKilled(BuildFailed):
    """The build process was killed, as the kernel does when memory runs out."""


_ERRORS: dict[str, type[EdgeformerError]] = {
    error.__name__: error for error in (InputError, GateMissed, EnvironmentFault, BuildFailed)
}


@dataclass(frozen=True)
class EngineBuild:
    """A serialized engine and its report."""

    serialized: bytes
    report: EngineReport


def compile_file(
    place: Callable[[Path], Path],
    spec: EngineSpec,
    *,
    target: Target,
    library: PluginLibrary | None,
    has_body: bool = True,
    timing_cache: Path | None = None,
    tuning_memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> EngineBuild:
    """Build the engine of a model's file.

    Args:
        place: called with a path in a folder of the build's own; gives the path of the model's file, which it may have
            written there.
        spec: what the engine is built with.
        target: machine to build for.
        library: the plugin library, where the engine needs it.
        has_body: the file has the op's body, which a parser takes where it is not told otherwise. If it has, the file
            may be changed.
        timing_cache: as for `edgeformer.engine.builder.build_engine`.
        tuning_memory_bytes: limit of the memory that TensorRT takes to try kernels out, which on a board is that of
            the host, too; ``None`` leaves it to TensorRT.
        progress: called with the builder's phases; returning ``False`` cancels the build.

    Raises:
        InputError: TensorRT cannot parse the model, or the timing cache is of another GPU or version.
        EnvironmentFault: TensorRT is missing or cannot be started, the disk is full, or the build took longer than its
            limit (`edgeformer.supervision.limits`).
        GateMissed: the engine does not have one plugin layer for each op node.
        BuildFailed: TensorRT cannot build the network, or its process ended; `BuildKilled` if it was killed.
        BuildCancelled: ``progress`` returned ``False``.
    """
    backend = require_backend(target.flavour, target.tensorrt_minimum, target.tensorrt_below)
    caching = timing_cache if target.flavour == "tensorrt" else None
    try:
        with temporary_folder("engine") as folder:
            job = BuildJob(
                model=place(folder / "model.onnx").absolute(),
                engine=folder / "model.engine",
                flavour=target.flavour,
                sms=target.sms,
                ahead_of_time=target.built == "anywhere",
                shapes=spec.shapes,
                op_nodes=spec.op_nodes,
                use_plugin=spec.use_plugin,
                has_body=has_body,
                plugin_library=library.path if library else None,
                embed_plugin=spec.embed_plugin,
                cuda_graphs=spec.cuda_graphs,
                workspace_bytes=spec.workspace_bytes,
                tuning_memory_bytes=tuning_memory_bytes,
                max_aux_streams=spec.max_aux_streams,
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
        "op_nodes": spec.op_nodes,
        "plugin_version": library.metadata.version if library else None,
        "plugin_embedded": spec.embed_plugin and library is not None,
        "cuda_graphs": spec.cuda_graphs,
        "workspace_bytes": spec.workspace_bytes,
        "max_aux_streams": spec.max_aux_streams,
        "peak_host_bytes": peak,
        "profile": spec.shapes,
        "warnings": tuple(warnings),
    }
    return EngineBuild(serialized, EngineReport.model_validate(report))


def write_engine(build: EngineBuild, path: str | os.PathLike[str]) -> None:
    """Write the engine, and its report beside it as ``PATH.json``, which `inspect` reads."""
    write_bytes(path, build.serialized)
    write_text(f"{os.fspath(path)}{SIDECAR_SUFFIX}", build.report.model_dump_json(indent=2) + "\n")


def _no_room(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        "EF602",
        f"the engine build cannot read or write its files: {error}. It needs room in {tempfile.gettempdir()}; "
        "$TMPDIR names another folder",
    )


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
            kind = BuildKilled if process.returncode == -signal.SIGKILL else BuildFailed
            raise kind("EF626", _how_it_ended(process.returncode, title, stderr_path))
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
