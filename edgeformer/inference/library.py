"""The runtime library's C interface (``runtime/include/edgeformer/edgeformer.h``)."""

from __future__ import annotations

import ctypes
import platform
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.ops.library_files import BUILD_COMMAND, RUNTIME, candidate_paths, library_for, searched_places

__all__ = [
    "MAX_RANK",
    "Backend",
    "ClassStruct",
    "ImageStruct",
    "LoadOptions",
    "ModelInfo",
    "RuntimeLibrary",
    "Tensor",
    "TensorInfo",
    "default_library",
]

MAX_RANK = 8
"""``EDGEFORMER_MAX_RANK``."""

_Shape = c_int64 * MAX_RANK


class Backend(IntEnum):
    """``EdgeformerBackend``."""

    ANY = 0
    TENSORRT = 1
    ONNX_RUNTIME = 2


class _Struct(Structure):
    """A struct that begins with its own size, which tells the library what version the caller was written for."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class LoadOptions(_Struct):
    """``EdgeformerLoadOptions``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *(
            (name, c_int32)
            for name in ("backend", "graph", "device", "contexts", "threads", "cuda_graphs", "trust_bundle")
        ),
        *(
            (name, c_char_p)
            for name in ("onnxruntime_library", "tensorrt_library", "tensorrt_rtx_library", "plugin_library")
        ),
        ("content", c_void_p),
        ("content_bytes", c_uint64),
        ("embedded_plugin", c_int64),
    )


class ModelInfo(_Struct):
    """``EdgeformerModelInfo``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *((name, c_int32) for name in ("backend", "inputs", "outputs", "labels", "contexts", "takes_images", "device")),
        *(
            (name, c_char_p)
            for name in (
                *("name", "task", "precision", "backend_library", "backend_version", "file", "backend_reason"),
            )
        ),
        ("image_input", c_int64),
    )


class TensorInfo(_Struct):
    """``EdgeformerTensorInfo``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *((name, c_int32) for name in ("type", "rank", "is_input")),
        ("name", c_char_p),
        *((name, _Shape) for name in ("shape", "minimum", "optimum", "maximum")),
    )


class Tensor(Structure):
    """``EdgeformerTensor``; arrays of them are made, so its size is set by whoever fills it."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *((name, c_int32) for name in ("type", "memory", "rank")),
        ("shape", _Shape),
        ("data", c_void_p),
        ("bytes", c_uint64),
        ("result", c_void_p),
    )


class ImageStruct(_Struct):
    """``EdgeformerImage``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *((name, c_int32) for name in ("pixels", "width", "height", "orientation", "yuv_matrix")),
        ("stride", c_int64),
        ("chroma_stride", c_int64),
        ("data", c_void_p),
        ("chroma", c_void_p),
    )


class ClassStruct(Structure):
    """``EdgeformerClass``."""

    _fields_: ClassVar = (("index", c_int32), ("probability", c_float))


_Tensors = POINTER(Tensor)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "edgeformerLoad": (c_char_p, POINTER(LoadOptions), POINTER(c_void_p)),
    "edgeformerDescribe": (c_void_p, POINTER(ModelInfo)),
    "edgeformerTensor": (c_void_p, c_int32, POINTER(TensorInfo)),
    "edgeformerOutputShapes": (c_void_p, _Tensors, c_int32, _Tensors, c_int32),
    "edgeformerContextOutputShapes": (c_void_p, _Tensors, c_int32, _Tensors, c_int32),
    "edgeformerRun": (c_void_p, _Tensors, c_int32, _Tensors, c_int32),
    "edgeformerAcquireContext": (c_void_p, c_int32, POINTER(c_void_p)),
    "edgeformerRunContext": (c_void_p, _Tensors, c_int32, _Tensors, c_int32),
    "edgeformerEnqueue": (c_void_p, _Tensors, c_int32, _Tensors, c_int32, c_void_p),
    "edgeformerPreprocess": (c_void_p, POINTER(ImageStruct), c_int32, _Tensors),
    "edgeformerClassify": (c_void_p, POINTER(ImageStruct), c_int32, c_int32, POINTER(ClassStruct)),
}
# EdgeformerStatus: what the caller gave, and what the machine lacks. Any other is a fault of the library's own.
_CALLERS_FAULTS = (1, 2, 5, 6, 8)
_MACHINES_FAULTS = (3, 7, 9)


class RuntimeLibrary:
    """A loaded runtime library.

    Attributes:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        """Load the library.

        Raises:
            EnvironmentFault: it cannot be loaded, or is of another version.
        """
        self.path = path
        try:
            library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        except OSError as error:
            raise EnvironmentFault("EF861", f"the runtime library {path} cannot be loaded: {error}") from error
        try:
            for name, arguments in _FUNCTIONS.items():
                function = getattr(library, name)
                function.argtypes, function.restype = arguments, c_int32
            library.edgeformerRelease.argtypes, library.edgeformerRelease.restype = (c_void_p,), None
            library.edgeformerReleaseContext.argtypes, library.edgeformerReleaseContext.restype = (c_void_p,), None
            library.edgeformerLabel.argtypes, library.edgeformerLabel.restype = (c_void_p, c_int32), c_char_p
            library.edgeformerGraphState.argtypes, library.edgeformerGraphState.restype = (c_void_p,), c_char_p
            library.edgeformerLastError.argtypes, library.edgeformerLastError.restype = (), c_char_p
        except AttributeError as error:
            raise EnvironmentFault(
                "EF861",
                f"the library {path} does not have the C interface of this edgeformer ({error}): build it again: "
                f"{BUILD_COMMAND}",
            ) from error
        self.functions = library

    def check(self, status: int) -> None:
        """Raise what a function's status stands for, with the library's code and message.

        Raises:
            InputError: the caller gave something that is not taken.
            EnvironmentFault: the machine lacks something.
            RuntimeError: the library has a fault of its own.
        """
        if status:
            self._raise(status)

    def _raise(self, status: int) -> NoReturn:
        text = self.functions.edgeformerLastError().decode(errors="replace")
        code, _, message = text.partition(": ")
        if status in _CALLERS_FAULTS:
            raise InputError(code, message)
        if status in _MACHINES_FAULTS:
            raise EnvironmentFault(code, message)
        raise RuntimeError(text)

    def load(self, path: bytes, options: LoadOptions) -> c_void_p:
        """``edgeformerLoad``: a model, to be given to ``edgeformerRelease``."""
        model = c_void_p()
        self.check(self.functions.edgeformerLoad(path, byref(options), byref(model)))
        return model


@cache
def default_library() -> RuntimeLibrary:
    """The runtime library of this installation.

    Raises:
        EnvironmentFault: there is none, or it cannot be loaded.
    """
    paths = candidate_paths(RUNTIME)
    if not paths:
        raise EnvironmentFault(
            "EF860",
            f"{RUNTIME.name}, which runs models, is not there ({searched_places(RUNTIME)}): install edgeformer's "
            f"wheel, or build it in a source checkout: {BUILD_COMMAND}",
        )
    # One that was cross-compiled for a device may be newer than this machine's own.
    return RuntimeLibrary(library_for(platform.machine(), RUNTIME) or paths[0])
