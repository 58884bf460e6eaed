"""`load`: from a bundle's folder, an engine or an ONNX file to a `Model`."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_void_p, cast
from typing import Any, Literal

from edgeformer.errors import InputError
from edgeformer.inference.arguments import whole_number
from edgeformer.inference.backend_libraries import onnx_runtime_library, tensorrt_library
from edgeformer.inference.library import Backend, LoadOptions, RuntimeLibrary, default_library
from edgeformer.inference.model import Model
from edgeformer.text import printable

__all__ = ["load", "load_engine"]

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
    if not (backend is None or isinstance(backend, str)) or backend not in _BACKENDS:
        raise InputError("EF101", f"backend is {backend!r}; it is tensorrt, onnxruntime or None")
    if not isinstance(graph, str) or graph not in _GRAPHS:
        raise InputError("EF101", f"graph is {graph!r}; it is typed or fused")
    if backend_library is not None and backend is None:
        raise InputError("EF101", "backend_library is given without backend: say which one it is the library of")
    for_engines = backend_library if backend == "tensorrt" else None
    for_graphs = backend_library if backend == "onnxruntime" else None
    options = LoadOptions(
        backend=_BACKENDS[backend],
        graph=_GRAPHS[graph],
        device=_device(device),
        contexts=_int32(contexts, "contexts", least=1),
        threads=_int32(0 if threads is None else threads, "threads"),
        cuda_graphs=_int32(cuda_graphs, "cuda_graphs"),
        trust_bundle=int(bool(trust_bundle)),
        onnxruntime_library=_bytes(for_graphs or onnx_runtime_library()),
        tensorrt_library=_bytes(for_engines or tensorrt_library("tensorrt")),
        tensorrt_rtx_library=_bytes(for_engines or tensorrt_library("tensorrt_rtx")),
        plugin_library=_absolute(plugin_library),
    )
    encoded = _bytes(path)
    if encoded is None:
        raise InputError("EF102", "the path is None: give a bundle's folder, an engine, or an ONNX file")
    runtime = library or default_library()
    return Model(runtime, runtime.load(encoded, options))


def load_engine(
    path: str | os.PathLike[str],
    content: bytes,
    *,
    flavour: str | None = None,
    plugin_library: str | os.PathLike[str] | None = None,
    embedded_plugin: bool = False,
    library: RuntimeLibrary | None = None,
) -> Model:
    """Load an engine that the caller has read, and whose code the caller lets run, whatever bundle it is part of.

    Args:
        path: what messages call it.
        content: the engine.
        flavour: "tensorrt" or "tensorrt_rtx", whose library is looked for among Python's packages; None: both.
        plugin_library: the library with the engine's plugins.
        embedded_plugin: let the plugin library run that is embedded in the engine.
        library: as for `load`.

    Raises:
        InputError: this TensorRT and GPU cannot load it.
        EnvironmentFault: the machine lacks what it needs: a GPU, a driver, TensorRT.
    """
    of_packages = {name: tensorrt_library(name) for name in ("tensorrt", "tensorrt_rtx") if flavour in (None, name)}
    options = LoadOptions(
        backend=Backend.TENSORRT,
        trust_bundle=1,
        tensorrt_library=_bytes(of_packages.get("tensorrt")),
        tensorrt_rtx_library=_bytes(of_packages.get("tensorrt_rtx")),
        plugin_library=_absolute(plugin_library),
        content=cast(c_char_p(content), c_void_p),
        content_bytes=len(content),
        embedded_plugin=int(embedded_plugin),
    )
    runtime = library or default_library()
    return Model(runtime, runtime.load(_bytes(path) or b"", options))


def _bytes(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        encoded = os.fsencode(path)
    except TypeError as error:
        raise InputError("EF102", f"a path is a {type(path).__name__}; it is a text or a pathlib.Path") from error
    if b"\0" in encoded:  # where C would take the path to end
        raise InputError("EF102", f"{printable(os.fsdecode(path))}: a path has no NUL character")
    return encoded


def _absolute(path: str | os.PathLike[str] | None) -> bytes | None:
    """A path that the dynamic linker takes for one: a bare name it would look up elsewhere."""
    encoded = _bytes(path)
    return None if encoded is None else os.path.abspath(encoded)


def _device(device: Any) -> int:
    """The number of a CUDA device; torch's names for devices are no numbers."""
    if isinstance(device, bool) or not hasattr(device, "__index__"):
        raise InputError(
            "EF101",
            f"device is {device!r}; it is the number of a CUDA device, such as 0. For the CPU give "
            "backend='onnxruntime'",
        )
    return _int32(device, "device")


def _int32(value: Any, name: str, least: int = 0) -> int:
    """``value``, which ctypes would cut to 32 bits without a word."""
    number = whole_number(value, name)
    if not least <= number < 2**31:
        raise InputError("EF101", f"{name} is {number}; it is {least} or more, and below 2**31")
    return number
