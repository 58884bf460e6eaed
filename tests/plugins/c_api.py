"""``c_api.h`` of the op as it is, bad use included: what the tests of the library itself call it with."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from edgeformer.ops.bi_level_routing_attention import Attributes
from edgeformer.ops.library import Device, Plan, Problem, Workspace

__all__ = ["Device", "Plan", "Problem", "Workspace"]

SUCCESS, UNSUPPORTED_PROBLEM, INVALID_BUFFER, CUDA_ERROR, INTERNAL_ERROR = range(5)
AUTOMATIC, PLAIN, GATHER, RESIDENT = range(4)
TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 0,
    np.dtype(np.float16): 1,
    np.dtype(ml_dtypes.bfloat16): 2,
    np.dtype(np.int8): 3,
}


ORIN = Device(compute_capability=87, max_shared_bytes=163 * 1024, multiprocessors=16)


def load(path: Path) -> ctypes.CDLL:
    """The library with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    library.edgeformerBiLevelRoutingAttention.argtypes = [pointer] * 6 + [ctypes.c_size_t, pointer]
    library.edgeformerBiLevelRoutingAttentionWorkspace.argtypes = [pointer] * 2
    library.edgeformerBiLevelRoutingAttentionPlan.argtypes = [pointer] * 3
    library.edgeformerTakeErrors.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.edgeformerTakeErrors.restype = ctypes.c_size_t
    return library


def take_errors(library: ctypes.CDLL) -> str:
    """The messages since the last call."""
    buffer = ctypes.create_string_buffer(1 << 16)
    library.edgeformerTakeErrors(buffer, len(buffer))
    return buffer.value.decode()


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike, alignment: int = 256) -> npt.NDArray[Any]:
    """An array of NaN (of -1 for integers) whose address is a multiple of ``alignment`` and of nothing larger."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(count + 3 * alignment, 0xFF, np.uint8)
    start = -memory.ctypes.data % (2 * alignment) + alignment
    return memory[start : start + count].view(dtype).reshape(shape)


def problem_of(qkv: npt.NDArray[Any], attributes: Attributes, output_type: npt.DTypeLike, **others: Any) -> Problem:
    """The problem of one call of the op; ``others`` are further fields."""
    batch, height, width, channels = qkv.shape
    return Problem(
        input_type=TYPES[qkv.dtype],
        output_type=TYPES[np.dtype(output_type)],
        batch=batch,
        height=height,
        width=width,
        num_heads=attributes.num_heads,
        regions=attributes.regions,
        topk=attributes.topk,
        qk_dim=attributes.qk_dim,
        dim=attributes.value_channels(channels),
        scale=attributes.scale,
        q_scale=attributes.q_scale or 0.0,
        k_scale=attributes.k_scale or 0.0,
        v_scale=attributes.v_scale or 0.0,
        **others,
    )
