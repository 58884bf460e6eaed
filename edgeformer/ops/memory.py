"""Addresses of the arrays of torch, CuPy, Numba, pycuda, JAX and NumPy, and handles of streams; none is imported."""

from __future__ import annotations

import ctypes
import math
import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer.errors import EnvironmentFault, InputError

try:
    import ml_dtypes
except ImportError:  # where models are only run; no array can be bfloat16 then
    ml_dtypes = None  # type: ignore[assignment]

__all__ = ["Buffer", "Memory", "bfloat16", "is_torch", "memory_of", "stream_handle", "wait_for"]

# NumPy has no such type of its own. Without ml_dtypes a type that nothing is of stands for it.
bfloat16 = np.dtype([("bfloat16", np.uint16)]) if ml_dtypes is None else np.dtype(ml_dtypes.bfloat16)

_TAKEN = "float32, float16, bfloat16, int8, uint8, int32, int64 and bool are taken"


@dataclass(frozen=True)
class Buffer:
    """Memory that no array object describes, such as a pycuda ``DeviceAllocation``.

    Attributes:
        address: an integer, or an object that ``int()`` turns into one.
        shape: shape of the dense, row-major array that starts there.
        dtype: its type, as NumPy names it; bfloat16 is ``ml_dtypes.bfloat16``.
    """

    address: Any
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Memory:
    """One dense, row-major array.

    Attributes:
        name: what error messages call it.
        address: where it starts.
        shape: its shape.
        dtype: its type.
        on_device: whether it is CUDA device memory; None where that cannot be known.
        device: the CUDA device number, where it is known.
    """

    name: str
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    on_device: bool | None
    device: int | None

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_torch(array: object) -> bool:
    """Whether ``array`` is a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def stream_handle(stream: Any, like: Any) -> int:
    """A CUDA stream as an integer, 0 for the default one.

    Args:
        stream: a handle, an object with ``__cuda_stream__``, or a stream of torch, CuPy or pycuda; None takes the
            current one of ``like``'s library, or CUDA's default stream.
        like: an array of the call.

    Raises:
        InputError: it is no stream.
    """
    if stream is None:
        cupy = sys.modules.get("cupy")
        if is_torch(like) and like.is_cuda:
            stream = sys.modules["torch"].cuda.current_stream(like.device)
        elif cupy is not None and isinstance(like, cupy.ndarray):
            stream = cupy.cuda.get_current_stream()
        else:
            return 0
    if hasattr(stream, "__cuda_stream__"):
        # (version, handle), as NVIDIA's CUDA Python defines it.
        return int(stream.__cuda_stream__()[1])
    for attribute in ("cuda_stream", "ptr", "handle"):  # torch, CuPy, pycuda and Numba
        if hasattr(stream, attribute):
            stream = getattr(stream, attribute)
            break
    if isinstance(stream, ctypes.c_void_p):  # Numba's
        return stream.value or 0
    if hasattr(stream, "__index__"):
        return operator.index(stream)
    raise InputError(
        "EF908",
        f"stream is a {type(stream).__name__}; give a handle, an object with __cuda_stream__, or a stream of torch, "
        "CuPy or pycuda",
    )


def wait_for(array: Any) -> None:
    """Wait for the work on an array that its library has enqueued; for arrays that a run on another stream uses.

    Waited for is the current stream of torch or CuPy, what pycuda's context has under way, the stream that
    ``__cuda_array_interface__`` names, and what JAX calls ready. Of other arrays nobody knows how.

    Args:
        array: in device memory.

    Raises:
        EnvironmentFault: CUDA cannot wait for the stream.
    """
    module = type(array).__module__.partition(".")[0]
    if is_torch(array):
        if array.is_cuda:
            sys.modules["torch"].cuda.current_stream(array.device).synchronize()
    elif module == "cupy":
        sys.modules["cupy"].cuda.get_current_stream().synchronize()
    elif module == "pycuda":
        sys.modules["pycuda.driver"].Context.synchronize()
    elif hasattr(array, "block_until_ready"):
        array.block_until_ready()
    elif stream := getattr(array, "__cuda_array_interface__", {}).get("stream"):
        # 1 and 2 stand for the default streams, for the driver as well.
        status = ctypes.CDLL("libcuda.so.1").cuStreamSynchronize(ctypes.c_void_p(stream))
        if status:
            raise EnvironmentFault(
                "EF768",
                f"CUDA cannot wait for the stream {stream} of a {type(array).__name__} (error {status}): make its "
                "context current on this thread, or synchronize it before",
            )


def memory_of(array: Any, name: str) -> Memory:
    """The memory of an array of any library.

    Args:
        array: a torch tensor, a NumPy array, a `Buffer`, or anything with ``__cuda_array_interface__`` or DLPack.
        name: what messages call it.

    Raises:
        InputError: it is none of these, lies on another kind of device, or is not dense and row-major.
    """
    if isinstance(array, Buffer):
        return Memory(name, int(array.address), tuple(array.shape), np.dtype(array.dtype), None, None)
    if is_torch(array):
        return _from_torch(array, name)
    if hasattr(array, "__cuda_array_interface__"):
        return _from_cuda_array_interface(array, name)
    if isinstance(array, np.ndarray):
        _require_dense(name, array.shape, array.strides, array.dtype.itemsize)
        return Memory(name, array.ctypes.data, array.shape, array.dtype, False, None)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, name)
    raise InputError(
        "EF908",
        f"{name} is a {type(array).__name__}; it must be an array of NumPy or torch, have __cuda_array_interface__ or "
        "DLPack (CuPy, Numba, pycuda's GPUArray, JAX), or be an edgeformer.ops.cuda.Buffer around an address",
    )


def _require_dense(name: str, shape: Sequence[int], strides: Sequence[int] | None, unit: int) -> None:
    """Refuse strides other than those of a dense row-major array; an axis of one element may have any."""
    if strides is None or 0 in shape:
        return
    expected = unit
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            raise InputError(
                "EF912",
                f"{name} of shape {tuple(shape)} has strides {tuple(strides)}; it must be dense and row-major: make it "
                "contiguous first (torch: .contiguous(), NumPy and CuPy: ascontiguousarray)",
            )
        expected *= size


def _from_torch(tensor: Any, name: str) -> Memory:
    import torch

    kinds = {
        torch.float32: np.dtype(np.float32),
        torch.float16: np.dtype(np.float16),
        torch.bfloat16: bfloat16,
        torch.int8: np.dtype(np.int8),
        torch.uint8: np.dtype(np.uint8),
        torch.int32: np.dtype(np.int32),
        torch.int64: np.dtype(np.int64),
        torch.bool: np.dtype(np.bool_),
        torch.float64: np.dtype(np.float64),
    }
    if tensor.dtype not in kinds:
        raise InputError("EF909", f"{name} is {tensor.dtype}; {_TAKEN}")
    if tensor.device.type not in ("cuda", "cpu"):
        raise InputError("EF911", f"{name} is on {tensor.device}; it must be on a CUDA device or the CPU")
    if tensor.layout != torch.strided:
        raise InputError("EF912", f"{name} has layout {tensor.layout}; it must be dense")
    _require_dense(name, tensor.shape, tensor.stride(), 1)
    on_device = tensor.device.type == "cuda"
    return Memory(
        name,
        tensor.data_ptr(),
        tuple(tensor.shape),
        kinds[tensor.dtype],
        on_device,
        tensor.device.index if on_device else None,
    )


def _from_cuda_array_interface(array: Any, name: str) -> Memory:
    """CUDA array interface, versions 2 and 3 (numba.readthedocs.io, "CUDA Array Interface")."""
    interface = array.__cuda_array_interface__
    try:
        dtype, shape = np.dtype(interface["typestr"]), tuple(map(operator.index, interface["shape"]))
        address = operator.index(interface["data"][0])
    except (KeyError, TypeError) as error:
        raise InputError(
            "EF781",
            f"{name} has a __cuda_array_interface__ that does not tell shape, type and address "
            f"({type(error).__name__}: {error})",
        ) from error
    if interface.get("mask") is not None:
        raise InputError("EF781", f"{name} has a mask, of which models know nothing: give its values alone")
    # The interface has no name for bfloat16; CuPy's arrays of that type still know their own.
    if dtype.kind == "V" and getattr(array, "dtype", None) == bfloat16:
        dtype = bfloat16
    _require_dense(name, shape, interface.get("strides"), dtype.itemsize)
    device = getattr(getattr(array, "device", None), "id", None)
    return Memory(name, address, shape, dtype, True, device)


class _DLTensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h, the first member of ``DLManagedTensor``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


# DLDeviceType and DLDataTypeCode of dlpack.h.
_DL_CPU, _DL_CUDA, _DL_CUDA_MANAGED = 1, 2, 13
_DL_DTYPES = {
    (6, 8): np.dtype(np.bool_),
    (0, 64): np.dtype(np.int64),
    (0, 8): np.dtype(np.int8),
    (0, 32): np.dtype(np.int32),
    (1, 8): np.dtype(np.uint8),
    (2, 16): np.dtype(np.float16),
    (2, 32): np.dtype(np.float32),
    (4, 16): bfloat16,
}


def _from_dlpack(array: Any, name: str) -> Memory:
    # The capsule is not consumed: the array itself keeps the memory, for as long as its owner keeps the array.
    try:
        capsule = array.__dlpack__()
    except BufferError as error:  # what the protocol has for arrays that it cannot describe
        raise InputError("EF781", f"{name}, a {type(array).__name__}, has no DLPack form: {error}") from error
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(get_pointer(capsule, b"dltensor"))
    if tensor.device_type not in (_DL_CPU, _DL_CUDA, _DL_CUDA_MANAGED):
        raise InputError("EF911", f"{name} is on DLPack device type {tensor.device_type}; it must be on a CUDA device")
    dtype = _DL_DTYPES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise InputError(
            "EF909",
            f"{name} has DLPack type code {tensor.code} with {tensor.bits} bits; {_TAKEN}",
        )
    shape = tuple(tensor.shape[: tensor.ndim])
    _require_dense(name, shape, tensor.strides[: tensor.ndim] if tensor.strides else None, 1)
    on_device = tensor.device_type != _DL_CPU
    address = (tensor.data or 0) + tensor.byte_offset
    return Memory(name, address, shape, dtype, on_device, tensor.device_id if on_device else None)
