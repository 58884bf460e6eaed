"""`load`: from a bundle's folder, an engine or an ONNX file to a `Model`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from edgeformer.errors import InputError
from edgeformer.inference.backend_libraries import onnx_runtime_library, tensorrt_library
from edgeformer.inference.library import Backend, LoadOptions, RuntimeLibrary, default_library
from edgeformer.inference.model import Model
from edgeformer.text import printable

__all__ = ["load"]

_BACKENDS = {None: Backend.ANY, "tensorrt": Backend.TENSORRT, "onnxruntime": Backend.ONNX_RUNTIME}
_GRAPHS = {"typed": 0, "fused": 1}


def load(
    path: str | os.PathLike[str],
    *,
    backend: Literal["tensorrt", "onnxruntime"] | None = None,
    graph: Literal["typed", "fused"] = "typed",
    device: int = 0,
    contexts: int = 1,
    threads: int | None = None,
    cuda_graphs: int = 0,
    trust_bundle: bool = False,
    backend_library: str | os.PathLike[str] | None = None,
    plugin_library: str | os.PathLike[str] | None = None,
    library: RuntimeLibrary | None = None,
) -> Model:
    """Load a model to run it.

    Args:
        path: a bundle's folder, an engine, or an ONNX file.
        backend: what runs it; None takes TensorRT where there are an engine and a GPU that can run it, else ONNX
            Runtime on the CPU (`Description.backend_reason` says why).
        graph: which of a bundle's graphs ONNX Runtime runs: in the engine's precision, or in the exported model's.
        device: CUDA device.
        contexts: how many runs may go on at once, 1 to 64; further callers wait.
        threads: threads of one run in ONNX Runtime; None takes one a core.
        cuda_graphs: shapes that a context captures into CUDA graphs, at most; 0 for none.
        trust_bundle: you trust whoever made the bundle: its engine and plugin library are code. ONNX Runtime needs no
            trust.
        backend_library: the backend's library, such as ``libonnxruntime.so.1``; needs ``backend``. None takes that of
            Python's package, or the system's.
        plugin_library: of an engine that is in no bundle.
        library: the runtime library; None takes this installation's.

    Returns:
        The model.

    Raises:
        InputError: there is no such model, it is damaged, or it cannot be run; the message has the way out.
        EnvironmentFault: the machine lacks what the model needs: the backend's library, a GPU, a driver.
    """
    if backend not in _BACKENDS:
        raise InputError("EF101", f"backend is {backend!r}; it is tensorrt, onnxruntime or None")
    if graph not in _GRAPHS:
        raise InputError("EF101", f"graph is {graph!r}; it is typed or fused")
    if backend_library is not None and backend is None:
        raise InputError("EF101", "backend_library is given without backend: say which one it is the library of")
    named = None if backend_library is None else Path(backend_library)
    for_engines = named if backend == "tensorrt" else None
    for_graphs = named if backend == "onnxruntime" else None
    options = LoadOptions(
        backend=_BACKENDS[backend],
        graph=_GRAPHS[graph],
        device=_int32(device, "device"),
        contexts=_int32(contexts, "contexts"),
        threads=_int32(threads or 0, "threads"),
        cuda_graphs=_int32(cuda_graphs, "cuda_graphs"),
        trust_bundle=int(bool(trust_bundle)),
        onnxruntime_library=_bytes(for_graphs or onnx_runtime_library()),
        tensorrt_library=_bytes(for_engines or tensorrt_library("tensorrt")),
        tensorrt_rtx_library=_bytes(for_engines or tensorrt_library("tensorrt_rtx")),
        plugin_library=_bytes(plugin_library),
    )
    runtime = library or default_library()
    return Model(runtime, runtime.load(_bytes(path) or b"", options))


def _bytes(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    encoded = os.fsencode(path)
    if b"\0" in encoded:  # where C would take the path to end
        raise InputError("EF102", f"{printable(os.fsdecode(path))}: a path has no NUL character")
    return encoded


def _int32(value: int, name: str) -> int:
    """``value``, which ctypes would cut to 32 bits without a word."""
    if not 0 <= value < 2**31:
        raise InputError("EF101", f"{name} is {value}; it is 0 or more, and below 2**31")
    return value
