"""Addresses of other libraries' arrays. Device memory is stood in for by objects that say what CuPy's say."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from edgeformer.ops.memory import Buffer, memory_of, stream_handle, wait_for
from tests.raising import raises


def cuda_array(**interface: Any) -> Any:
    defaults = {"shape": (2, 3), "typestr": "<f2", "data": (0x7F00, False), "version": 3, "strides": None}
    return SimpleNamespace(__cuda_array_interface__={**defaults, **interface}, device=SimpleNamespace(id=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8])
def test_numpy(dtype: Any) -> None:
    array = np.zeros((2, 3, 4), dtype)
    memory = memory_of(array, "qkv")
    assert (memory.address, memory.shape, memory.dtype) == (array.ctypes.data, (2, 3, 4), np.dtype(dtype))
    assert memory.nbytes == array.nbytes
    assert memory.on_device is False


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (torch.float32, np.float32),
        (torch.float16, np.float16),
        (torch.bfloat16, ml_dtypes.bfloat16),
        (torch.int8, np.int8),
    ],
)
def test_torch(kind: torch.dtype, dtype: Any) -> None:
    tensor = torch.zeros(4, 5, dtype=kind)[1:]
    memory = memory_of(tensor, "qkv")
    assert (memory.address, memory.shape, memory.dtype) == (tensor.data_ptr(), (3, 5), np.dtype(dtype))
    assert (memory.on_device, memory.device) == (False, None)


def test_cuda_array_interface() -> None:
    memory = memory_of(cuda_array(), "qkv")
    assert (memory.address, memory.shape, memory.dtype) == (0x7F00, (2, 3), np.dtype(np.float16))
    assert (memory.on_device, memory.device) == (True, 1)
    assert memory_of(cuda_array(strides=(6, 2)), "qkv").shape == (2, 3)
    bfloat16 = cuda_array(typestr="<V2")
    bfloat16.dtype = np.dtype(ml_dtypes.bfloat16)
    assert memory_of(bfloat16, "qkv").dtype == ml_dtypes.bfloat16


class OnlyDlpack:
    """An array whose library is none that is known by name."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self) -> Any:
        return self.tensor.__dlpack__()


@pytest.mark.parametrize(
    ("kind", "dtype"), [(torch.float16, np.float16), (torch.bfloat16, ml_dtypes.bfloat16), (torch.int8, np.int8)]
)
def test_dlpack(kind: torch.dtype, dtype: Any) -> None:
    tensor = torch.zeros(4, 5, dtype=kind)[1:]
    memory = memory_of(OnlyDlpack(tensor), "qkv")
    assert (memory.address, memory.shape, memory.dtype) == (tensor.data_ptr(), (3, 5), np.dtype(dtype))
    assert memory.on_device is False


def test_a_bare_address_needs_a_buffer() -> None:
    class Allocation:
        """As pycuda's ``DeviceAllocation``."""

        def __int__(self) -> int:
            return 4096

    memory = memory_of(Buffer(Allocation(), (2, 8), np.float16), "qkv")
    assert (memory.address, memory.nbytes, memory.on_device) == (4096, 32, None)
    with raises("EF908", "qkv is a Allocation", "__cuda_array_interface__", "DLPack", "edgeformer.ops.cuda.Buffer"):
        memory_of(Allocation(), "qkv")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float16)[:, ::2],
        torch.zeros(4, 4).T,
        OnlyDlpack(torch.zeros(4, 4).T),
        cuda_array(strides=(2, 4)),
    ],
    ids=["numpy", "torch", "dlpack", "cuda_array_interface"],
)
def test_strides_are_refused(array: Any) -> None:
    with raises("EF912", "lepe_weight", "strides (", ".contiguous()", "ascontiguousarray"):
        memory_of(array, "lepe_weight")


def test_strides_of_axes_without_a_step_do_not_matter() -> None:
    assert memory_of(torch.zeros(3, 1, 4).transpose(0, 1)[:, :, :], "qkv").shape == (1, 3, 4)
    assert memory_of(torch.zeros(4, 0).T, "qkv").shape == (0, 4)


@pytest.mark.parametrize(
    ("tensor", "code", "values"),
    [
        (torch.zeros(2, dtype=torch.complex64), "EF909", ("torch.complex64", "float32, float16, bfloat16, int8")),
        (torch.zeros(2, device="meta"), "EF911", ("meta", "CUDA device")),
        (torch.zeros(2, 2).to_sparse(), "EF912", ("torch.sparse_coo", "dense")),
        (OnlyDlpack(torch.zeros(2, dtype=torch.complex64)), "EF909", ("type code 5", "64 bits", "float16")),
    ],
)
def test_other_tensors_are_refused(tensor: Any, code: str, values: tuple[str, ...]) -> None:
    with raises(code, "qkv", *values):
        memory_of(tensor, "qkv")


def test_streams_of_every_library() -> None:
    class Standard:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 11

    assert stream_handle(7, None) == 7
    assert stream_handle(None, np.zeros(1)) == 0
    assert stream_handle(Standard(), None) == 11
    assert stream_handle(SimpleNamespace(cuda_stream=12), None) == 12  # torch
    assert stream_handle(SimpleNamespace(ptr=13), None) == 13  # CuPy
    assert stream_handle(SimpleNamespace(handle=14), None) == 14  # pycuda
    with raises("EF908", "stream", "str"):
        stream_handle("default", None)


def test_the_current_stream_of_cupy_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    array = type("ndarray", (), {})
    cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=15))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(ndarray=array, cuda=cuda))
    assert stream_handle(None, array()) == 15
    assert stream_handle(None, np.zeros(1)) == 0


def test_the_current_stream_of_torch_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnDevice(torch.Tensor):
        is_cuda = True

    asked = []

    def current_stream(device: torch.device) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(cuda_stream=16)

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    tensor = torch.zeros(1).as_subclass(OnDevice)
    assert stream_handle(None, tensor) == 16
    assert asked == [tensor.device]


def test_handles_of_other_kinds() -> None:
    assert stream_handle(np.int64(7), None) == 7
    assert stream_handle(SimpleNamespace(handle=ctypes.c_void_p(17)), None) == 17  # Numba
    assert stream_handle(SimpleNamespace(handle=ctypes.c_void_p(None)), None) == 0
    with raises("EF908", "stream", "float"):
        stream_handle(1.5, None)


def array_of(module: str, **attributes: Any) -> Any:
    return type("Array", (), {"__module__": f"{module}.core", **attributes})()


def test_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own way; none of the libraries is here, so what they are asked for is noted."""
    asked = []
    stream = SimpleNamespace(synchronize=lambda: asked.append("cupy"))
    cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: stream))
    context = SimpleNamespace(synchronize=lambda: asked.append("pycuda"))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "pycuda.driver", SimpleNamespace(Context=context))
    wait_for(array_of("cupy"))
    wait_for(array_of("pycuda"))
    wait_for(array_of("jax", block_until_ready=lambda _: asked.append("jax")))
    wait_for(array_of("numba", __cuda_array_interface__={"stream": None}))
    wait_for(Buffer(0x1000, (1,), np.float32))
    wait_for(torch.zeros(1))
    assert asked == ["cupy", "pycuda", "jax"]


@pytest.mark.parametrize("status", [0, 201])
def test_the_stream_that_an_array_names_is_waited_for(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def synchronize(stream: ctypes.c_void_p) -> int:
        asked.append(stream.value)
        return status

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(cuStreamSynchronize=synchronize))
    array = array_of("numba", __cuda_array_interface__={"stream": 2})
    if status:
        with raises("EF768", "stream 2", status, "Array"):
            wait_for(array)
    else:
        wait_for(array)
    assert asked == [2]


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        ({"typestr": "<f9"}, "<f9"),
        ({"shape": ("a",)}, "TypeError"),
        ({"data": None}, "TypeError"),
        ({"mask": object()}, "mask"),
    ],
)
def test_interfaces_that_do_not_describe_an_array(interface: dict[str, Any], words: str) -> None:
    with raises("EF781", "qkv", words):
        memory_of(cuda_array(**interface), "qkv")
    with raises("EF781", "qkv", "typestr"):
        memory_of(SimpleNamespace(__cuda_array_interface__={}), "qkv")


def test_an_array_that_dlpack_cannot_describe() -> None:
    class Texts:
        def __dlpack__(self) -> object:
            raise BufferError("texts are not exported")

    with raises("EF781", "qkv", "Texts", "texts are not exported"):
        memory_of(Texts(), "qkv")
