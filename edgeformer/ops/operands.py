"""The arrays of a call of the fused kernels: what may be passed, and what is allocated where nothing was."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeformer.errors import InputError
from edgeformer.ops.library import Library
from edgeformer.ops.memory import Buffer, Memory, bfloat16, is_torch, memory_of

__all__ = [
    "ALIGNMENT",
    "allocate",
    "allocate_workspace",
    "check_memory",
    "check_overlap",
    "device_of",
    "given",
    "require_no_gradient",
    "require_shape_and_type",
]

# What the kernels' widest accesses need, and what the workspace's parts are aligned to, in bytes.
ALIGNMENT = 16


def given(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Memory:
    """``out`` or ``workspace``: an array, or a plain address about which nothing is known."""
    if isinstance(array, int) or (hasattr(array, "__int__") and not hasattr(array, "shape")):
        return memory_of(Buffer(array, shape, dtype), name)
    memory = memory_of(array, name)
    if name == "out":
        require_shape_and_type(memory, shape, dtype)
    return memory


def require_shape_and_type(memory: Memory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array of another shape or type; raises InputError."""
    if memory.shape != shape or memory.dtype != dtype:
        raise InputError(
            "EF903",
            f"{memory.name} is {memory.dtype} of shape {memory.shape}; this qkv needs {dtype} of shape {shape}",
        )


def require_no_gradient(*arrays: Any) -> None:
    """Refuse arrays that a gradient is asked of; raises InputError."""
    for array in arrays:
        if is_torch(array) and array.requires_grad and sys.modules["torch"].is_grad_enabled():
            raise InputError(
                "EF905",
                "a gradient was asked for (requires_grad), and the fused kernels have no backward pass: call them "
                "under torch.no_grad(), or train with the reference attention",
            )


def check_memory(operands: Sequence[Memory], library: Library, workspace_alignment: int) -> None:
    """Refuse operands on several devices, on the wrong side, or at unaligned addresses; raises InputError."""
    known = {operand.device for operand in operands if operand.device is not None}
    if len(known) > 1:
        where = ", ".join(f"{operand.name} on CUDA device {operand.device}" for operand in operands)
        raise InputError("EF911", f"the arrays are on several devices ({where}); they must be on one")
    for operand in operands:
        if operand.on_device is not None and operand.on_device != library.takes_device_memory:
            raise InputError(
                "EF911",
                f"{operand.name} is in host memory; the kernels need the memory of a CUDA device: move it there "
                "(torch: .cuda())"
                if library.takes_device_memory
                else f"{operand.name} is on a CUDA device; {library.path} runs the kernels on the CPU, for tests, and "
                "takes host memory",
            )
        alignment = workspace_alignment if operand.name == "workspace" else ALIGNMENT
        if operand.address % alignment:
            raise InputError(
                "EF912",
                f"{operand.name} starts at address {operand.address:#x}; it must be a multiple of {alignment} bytes: "
                "copy a view that starts inside another array (torch: .clone())",
            )


def check_overlap(operands: Sequence[Memory]) -> None:
    """Neither the output nor the workspace may share a byte with another operand."""
    for written in operands[1:3]:
        for other in operands:
            if (
                other is not written
                and written.address < other.address + other.nbytes
                and other.address < written.address + written.nbytes
            ):
                raise InputError("EF912", f"{written.name} overlaps {other.name}; each needs memory of its own")


def allocate(like: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Any:
    """An array of ``like``'s library on its device, not filled; raises InputError where that is not known."""
    if is_torch(like):
        import torch

        kind = torch.bfloat16 if dtype == bfloat16 else getattr(torch, dtype.name)
        return torch.empty(shape, dtype=kind, device=like.device)
    if isinstance(like, np.ndarray):
        # NumPy promises 16 bytes only by habit.
        raw = np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(like, cupy.ndarray):
        return cupy.empty(shape, dtype)
    raise InputError("EF908", f"qkv is a {type(like).__name__}, for which nothing can be allocated: give {name}=")


def allocate_workspace(like: Any, size: int, alignment: int) -> Any:
    """``size`` bytes that start at a multiple of ``alignment``, as `allocate` gives them."""
    # Slack for allocators that align to less: torch's on the CPU and NumPy's; those of the GPU give 256 and more.
    raw = allocate(like, (size + alignment,), np.dtype(np.uint8), "workspace")
    start = -memory_of(raw, "workspace").address % alignment
    return raw[start : start + size]


def device_of(array: Any) -> contextlib.AbstractContextManager[Any]:
    """Makes the array's device the current one, if its library can do that."""
    if is_torch(array) and array.is_cuda:
        return sys.modules["torch"].cuda.device(array.device)  # type: ignore[no-any-return]
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return array.device  # type: ignore[no-any-return]
    return contextlib.nullcontext()
