"""The plugin library's C interface (``c_api.h``), which needs no TensorRT."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.ops.library_files import (
    BUILD_COMMAND,
    ENVIRONMENT_VARIABLE,
    LIBRARY_NAME,
    candidate_paths,
    searched_places,
)

__all__ = [
    "Device",
    "Library",
    "Plan",
    "Problem",
    "Variant",
    "Workspace",
    "default_library",
    "load_library",
]


class Variant(IntEnum):
    """Kernels for the attention itself; ``EdgeformerVariant`` of the C interface."""

    PLAIN = 1
    GATHER = 2
    RESIDENT = 3


class _Struct(ctypes.Structure):
    """A struct that begins with its own size, which tells the library what version the caller was written for."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class Problem(_Struct):
    """``EdgeformerBiLevelRoutingAttentionProblem``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *(
            (name, c_int32)
            for name in (
                *("input_type", "output_type", "batch", "height", "width", "num_heads", "regions", "topk"),
                *("qk_dim", "dim", "lepe_kernel", "variant", "programmatic_launch"),
            )
        ),
        *((name, c_float) for name in ("scale", "q_scale", "k_scale", "v_scale")),
    )


class Workspace(_Struct):
    """``EdgeformerBiLevelRoutingAttentionWorkspace``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        ("alignment", c_uint32),
        *((name, c_uint64) for name in ("bytes", "means_offset", "means_bytes", "routing_offset", "routing_bytes")),
    )


class Device(_Struct):
    """``EdgeformerDevice``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        *((name, c_int32) for name in ("compute_capability", "max_shared_bytes", "multiprocessors")),
    )


class Plan(_Struct):
    """``EdgeformerBiLevelRoutingAttentionPlan``."""

    _fields_: ClassVar = (
        ("struct_size", c_uint32),
        ("variant", c_int32),
        ("variant_count", c_int32),
        ("variants", c_int32 * 5),
        *((name, c_int32) for name in ("head_dim", "warps", "heads", "stages", "splits", "shared_bytes")),
        ("blocks", c_int64),
    )


# EdgeformerStatus: a problem that the kernels do not take, or an invalid buffer. Any other is the machine's fault.
_CALLERS_FAULTS = (1, 2)
_PREFIX = "edgeformerBiLevelRoutingAttention"


class Library:
    """A loaded plugin library.

    Attributes:
        path: its file.
        takes_device_memory: whether buffers are device memory of a CUDA GPU; the library that runs the kernels on the
            CPU, for tests, takes host memory.
    """

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        except OSError as error:
            raise EnvironmentFault("EF611", f"the plugin library {path} cannot be loaded: {error}") from error
        self.path = path
        try:
            self._run = getattr(library, _PREFIX)
            self._workspace = getattr(library, f"{_PREFIX}Workspace")
            self._plan = getattr(library, f"{_PREFIX}Plan")
            self._take_errors = library.edgeformerTakeErrors
        except AttributeError as error:
            raise EnvironmentFault(
                "EF612",
                f"the library {path} does not have the C interface of this edgeformer ({error}): build it again: "
                f"{BUILD_COMMAND}",
            ) from error
        self._run.argtypes = (*[c_void_p] * 6, c_size_t, c_void_p)
        self._workspace.argtypes = (c_void_p, c_void_p)
        self._plan.argtypes = (c_void_p, c_void_p, c_void_p)
        self._take_errors.argtypes = (c_char_p, c_size_t)
        self._take_errors.restype = c_size_t
        self.takes_device_memory = not hasattr(library, "edgeformerEmulateDevice")

    def run(
        self,
        problem: Problem,
        *,
        qkv: int,
        lepe_weight: int,
        lepe_bias: int,
        output: int,
        workspace: int,
        workspace_bytes: int,
        stream: int,
    ) -> None:
        """Enqueue the op. Buffers are addresses, as `Problem` and ``c_api.h`` describe them; 0 is a null pointer.

        Raises:
            InputError: the library does not take the problem or the buffers.
            EnvironmentFault: CUDA reports an error: no device, a failed launch, an earlier fault.
        """
        buffers = (qkv, lepe_weight, lepe_bias, output, workspace)
        self._check(self._run(ctypes.byref(problem), *buffers, workspace_bytes, stream))

    def workspace(self, problem: Problem) -> Workspace:
        """The workspace that the problem needs; needs no GPU.

        Raises:
            InputError: the library does not take the problem.
        """
        layout = Workspace()
        self._check(self._workspace(ctypes.byref(problem), ctypes.byref(layout)))
        return layout

    def plan(self, problem: Problem, device: Device | None = None) -> Plan:
        """How the attention would run on ``device``, by default the current one.

        Raises:
            InputError: the library does not take the problem.
            EnvironmentFault: there is no CUDA device.
        """
        plan = Plan()
        self._check(self._plan(ctypes.byref(problem), device and ctypes.byref(device), ctypes.byref(plan)))
        return plan

    def _check(self, status: int) -> None:
        if status:
            buffer = ctypes.create_string_buffer(1 << 14)
            self._take_errors(buffer, len(buffer))
            text = buffer.value.decode(errors="replace").strip().replace("\n", "; ")
            message = text or f"{self.path} fails with status {status}"
            if status in _CALLERS_FAULTS:
                raise InputError("EF913", message)
            raise EnvironmentFault("EF914", message)


@cache
def load_library(path: str | os.PathLike[str]) -> Library:
    """The library at ``path``, loaded once.

    Raises:
        EnvironmentFault: it cannot be loaded, or is not edgeformer's.
    """
    return Library(Path(path))


@cache
def _default(chosen: str | None) -> Library:
    """The library; ``chosen`` is the environment variable's value, so that a change of it is noticed."""
    refused = []
    for path in candidate_paths():
        try:
            return load_library(path)
        except EnvironmentFault as fault:  # cross-compiled for another processor, or of another version
            refused.append(fault)
    if refused:
        raise refused[0]
    raise EnvironmentFault(
        "EF610",
        f"the fused kernels need {LIBRARY_NAME}, which is not installed ({searched_places()}). Build it where nvcc "
        f"is: {BUILD_COMMAND}; or name one in ${ENVIRONMENT_VARIABLE}",
    )


def default_library() -> Library:
    """The library of this installation, or the one that the environment names.

    Raises:
        EnvironmentFault: there is none, or it cannot be loaded.
    """
    return _default(os.environ.get(ENVIRONMENT_VARIABLE))
