"""Arrays of any library as the runtime's tensors, and results as arrays of the same library."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeformer.errors import InputError
from edgeformer.inference.library import MAX_RANK, Tensor
from edgeformer.ops.memory import Buffer, Memory, bfloat16, is_torch, memory_of

__all__ = ["DTYPES", "TYPES", "empty_like", "fill", "fill_output", "fits"]

# EdgeformerType of plugins/common/c_types.h.
DTYPES: tuple[np.dtype[Any], ...] = (
    np.dtype(np.float32),
    np.dtype(np.float16),
    bfloat16,
    np.dtype(np.int8),
    np.dtype(np.uint8),
    np.dtype(np.int32),
    np.dtype(np.int64),
    np.dtype(np.bool_),
)
TYPES = {dtype: number for number, dtype in enumerate(DTYPES)}
_SIZE = ctypes.sizeof(Tensor)


def fill(tensor: Tensor, array: Any, name: str, device: int | None = None) -> Any:
    """Describe an array to the runtime.

    Args:
        tensor: is filled.
        array: a NumPy array, a torch tensor, anything with ``__cuda_array_interface__`` or DLPack, or a `Buffer`.
        name: of the input or output, for messages.
        device: that the model is on; None for the CPU.

    Returns:
        What has to live as long as the description is used: the array, or a dense copy of it. Arrays of NumPy and of
        torch on the CPU that are not dense are copied; others are not.

    Raises:
        InputError: it is no such array, is not dense, is of a type that no tensor has, or lies on another device.
    """
    if isinstance(array, np.ndarray):
        # The usual case, without detours.
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        _set(tensor, array.__array_interface__["data"][0], array.shape, array.dtype, array.nbytes, False, name)
        return array
    if is_torch(array) and array.device.type == "cpu" and array.layout is sys.modules["torch"].strided:
        array = array.contiguous()
    memory = memory_of(array, name)
    if None not in (device, memory.device) and memory.device != device:
        raise InputError(
            "EF780",
            f"`{name}` is on CUDA device {memory.device}, and the model on {device}: copy it there, or load the model "
            f"with device={memory.device}",
        )
    _set(tensor, memory.address, memory.shape, memory.dtype, memory.nbytes, _is_on_device(memory), name)
    return array


def fill_output(tensor: Tensor, array: Any, name: str, device: int | None = None) -> None:
    """As `fill`, for an array that the runtime writes to.

    Raises:
        InputError: as `fill`; or it may not be written.
    """
    if isinstance(array, np.ndarray):
        read_only = not array.flags.writeable
    else:
        read_only = bool(getattr(array, "__cuda_array_interface__", {"data": (0, False)})["data"][1])
    if read_only:
        raise InputError("EF866", f"output `{name}` is given as an array that may only be read: give a copy of it")
    if fill(tensor, array, name, device) is not array:
        raise InputError("EF912", f"output `{name}` is not dense: make it contiguous")


def _is_on_device(memory: Memory) -> bool:
    # Of a bare address nothing is known; Buffer is for device memory.
    return memory.on_device is not False


def _set(
    tensor: Tensor,
    address: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    nbytes: int,
    on_device: bool,
    name: str,
) -> None:
    number = TYPES.get(dtype)
    if number is None or len(shape) > MAX_RANK:
        raise InputError(
            "EF802",
            f"`{name}` is {dtype} with {len(shape)} axes; models take {', '.join(map(str, TYPES))} with at most "
            f"{MAX_RANK}",
        )
    tensor.struct_size = _SIZE
    tensor.type = number
    tensor.memory = 1 if on_device else 0
    tensor.rank = len(shape)
    tensor.shape[: len(shape)] = shape
    tensor.data = address
    tensor.bytes = nbytes


def fits(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Refuse an output of another shape or type; raises InputError."""
    memory = memory_of(array, name)
    if memory.shape != shape or memory.dtype != dtype:
        raise InputError(
            "EF802",
            f"output `{name}` is given as {memory.dtype} {list(memory.shape)}; it comes out as {dtype} {list(shape)}",
        )


def empty_like(like: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array of ``like``'s library on its device, not filled.

    Args:
        like: the array whose library and device are taken; None for NumPy's.
        shape: of the array.
        dtype: its type; NumPy has bfloat16 with ml_dtypes alone.

    Raises:
        InputError: ``like``'s library has no way to make one: give the outputs, or arrays of another library.
    """
    if like is None or isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    if is_torch(like):
        torch = sys.modules["torch"]
        kind = torch.bfloat16 if dtype == bfloat16 else getattr(torch, dtype.name)
        return torch.empty(shape, dtype=kind, device=like.device)
    module = type(like).__module__.partition(".")[0]
    if module == "cupy":
        with like.device:
            return sys.modules["cupy"].empty(shape, dtype)
    if module == "numba":
        return sys.modules["numba.cuda"].device_array(shape, dtype)
    if module == "pycuda":
        return sys.modules["pycuda.gpuarray"].empty(shape, dtype)
    memory = memory_of(like, "an input")
    if not isinstance(like, Buffer) and not memory.on_device:
        return np.empty(shape, dtype)
    raise InputError(
        "EF862",
        f"an input is a {type(like).__name__}, for which no output of {math.prod(shape)} {dtype} can be made: give "
        "outputs= yourself",
    )
