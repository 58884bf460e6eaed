"""Arrays of every library become the runtime's tensors, and results come back as arrays of the same one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgeformer.errors import InputError
from edgeformer.inference.arrays import DTYPES, TYPES, empty_like, fill, fill_output, fits
from edgeformer.inference.library import Tensor
from edgeformer.ops.memory import Buffer, bfloat16
from tests.inference.conftest import DeviceArray
from tests.raising import raises


class DlpackArray:
    """An array of a library that nobody here knows."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self) -> Any:
        return self._array.__dlpack__()


def filled(array: Any) -> tuple[Tensor, Any]:
    tensor = Tensor()
    return tensor, fill(tensor, array, "x")


@pytest.mark.parametrize("number", range(len(DTYPES)))
def test_a_numpy_array_is_described(number: int) -> None:
    array = np.zeros((2, 3), DTYPES[number])
    tensor, kept = filled(array)
    assert kept is array
    assert (tensor.type, tensor.memory, tensor.rank, tensor.shape[:2]) == (number, 0, 2, [2, 3])
    assert (tensor.data, tensor.bytes) == (array.ctypes.data, 6 * DTYPES[number].itemsize)
    assert TYPES[DTYPES[number]] == number


@pytest.mark.parametrize("kind", [np.memmap, np.matrix])
def test_subclasses_of_numpy_arrays_are_numpy_arrays(kind: type[np.ndarray]) -> None:
    array = np.zeros((4, 4), np.float32).view(kind)[:, ::2]
    tensor, kept = filled(array)
    assert kept.flags.c_contiguous
    assert tensor.bytes == 32


def test_what_is_not_dense_on_the_host_is_copied() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    tensor, kept = filled(array)
    assert tensor.data == kept.ctypes.data != array.ctypes.data
    assert np.array_equal(kept, array)
    given = torch.arange(12, dtype=torch.float32).reshape(3, 4).T
    tensor, kept = filled(given)
    assert tensor.data == kept.data_ptr() != given.data_ptr()
    assert torch.equal(kept, given)


def test_device_memory_is_never_copied() -> None:
    tensor, _ = filled(DeviceArray((2, 3)))
    assert (tensor.memory, tensor.data, tensor.bytes) == (1, 0x7F0000000000, 24)
    tensor, _ = filled(Buffer(0x1000, (4,), np.int64))
    assert (tensor.memory, tensor.data, tensor.bytes) == (1, 0x1000, 32)
    strided = DeviceArray((2, 3))
    strided.__cuda_array_interface__["strides"] = (24, 8)
    with raises("EF912", "x", "(24, 8)"):
        filled(strided)


def test_memory_of_another_device_than_the_models() -> None:
    array = DeviceArray((2, 3))
    array.device = SimpleNamespace(id=1)  # type: ignore[attr-defined]
    for device in (None, 1):
        assert fill(Tensor(), array, "x", device) is array
    with raises("EF780", "x", "device 1", "model on 0", "device=1"):
        fill(Tensor(), array, "x", 0)
    with raises("EF780", "y"):
        fill_output(Tensor(), array, "y", 0)


def test_torch_and_dlpack() -> None:
    given = torch.ones(2, 2, dtype=torch.bfloat16)
    tensor, kept = filled(given)
    assert kept.data_ptr() == given.data_ptr() == tensor.data
    assert DTYPES[tensor.type] == bfloat16
    array = np.ones(5, np.int32)
    tensor, _ = filled(DlpackArray(array))
    assert (tensor.memory, tensor.data, tensor.bytes) == (0, array.ctypes.data, 20)


@pytest.mark.parametrize("dtype", [">f4", "f8", "u4", "S3", "O"])
def test_types_that_no_tensor_has_are_refused(dtype: str) -> None:
    with raises("EF802", "x", "float32", "int64"):
        filled(np.zeros(2, dtype))


def test_more_axes_than_a_tensor_has_are_refused() -> None:
    with raises("EF802", "9 axes", 8):
        filled(np.zeros((1,) * 9, np.float32))


@pytest.mark.parametrize("array", [[1.0], 1.0, np.float32(1), None])
def test_what_is_no_array_is_refused(array: Any) -> None:
    with raises("EF908", "x", type(array).__name__):
        filled(array)


def test_an_output_that_may_only_be_read_is_refused() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    for given in (array, np.frombuffer(bytes(12), np.float32), DeviceArray((3,), read_only=True)):
        with raises("EF866", "y"):
            fill_output(Tensor(), given, "y")
    fill_output(Tensor(), np.zeros(3, np.float32), "y")
    fill_output(Tensor(), DeviceArray((3,)), "y")


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.float32)[:, ::2], torch.zeros(4, 4)[:, ::2]])
def test_an_output_that_is_not_dense_is_refused(array: Any) -> None:
    with raises("EF912", "y", "contiguous"):
        fill_output(Tensor(), array, "y")


def test_an_output_of_another_shape_or_type_does_not_fit() -> None:
    fits(np.zeros((2, 3), np.float32), (2, 3), np.dtype(np.float32), "y")
    with raises("EF802", "y", "[3, 2]", "[2, 3]"):
        fits(np.zeros((3, 2), np.float32), (2, 3), np.dtype(np.float32), "y")
    with raises("EF802", "y", "float16", "float32"):
        fits(np.zeros((2, 3), np.float16), (2, 3), np.dtype(np.float32), "y")


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_of_the_inputs_library(dtype: np.dtype) -> None:
    for like in (None, np.zeros(1, np.float32), DlpackArray(np.zeros(1, np.float32))):
        made = empty_like(like, (2, 3), dtype)
        assert isinstance(made, np.ndarray)
        assert (made.shape, made.dtype) == ((2, 3), dtype)
    made = empty_like(torch.zeros(1), (2, 3), dtype)
    assert isinstance(made, torch.Tensor)
    assert tuple(made.shape) == (2, 3)
    assert str(made.dtype) == f"torch.{'bfloat16' if dtype == bfloat16 else dtype.name}"


@pytest.mark.parametrize("like", [DeviceArray((1,)), Buffer(0x1000, (1,), np.float32)])
def test_what_no_output_can_be_made_for_says_so(like: Any) -> None:
    with raises("EF862", type(like).__name__, "outputs="):
        empty_like(like, (2, 3), np.dtype(np.float32))


def test_outputs_of_cupy_pycuda_and_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their modules are stand-ins that say what they were asked for."""

    class Device:
        used = 0

        def __enter__(self) -> None:
            self.used += 1

        def __exit__(self, *_: object) -> None:
            pass

    def empty(shape: tuple[int, ...], dtype: np.dtype) -> tuple[Any, ...]:
        return shape, dtype

    for module, name in (("cupy", "cupy"), ("pycuda.gpuarray", "pycuda.gpuarray"), ("numba.cuda", "numba.cuda")):
        monkeypatch.setitem(__import__("sys").modules, name, SimpleNamespace(empty=empty, device_array=empty))
        like = type("ndarray", (), {"__module__": module})()
        like.device = Device()
        assert empty_like(like, (2,), np.dtype(np.int8)) == ((2,), np.dtype(np.int8))


def test_errors_are_input_errors() -> None:
    with pytest.raises(InputError):
        filled("text")
