"""What is kept of a call with NumPy arrays: all but the addresses."""

from __future__ import annotations

import numpy as np

from edgeformer.inference.arrays import fill, fill_output
from edgeformer.inference.library import Tensor
from edgeformer.inference.plan import Plan

X = np.zeros((2, 3), np.float32)
Y, Z = np.zeros((2, 1), np.int64), np.zeros((), np.float16)


def test_the_tensors_are_those_of_the_first_call_at_other_addresses() -> None:
    inputs, outputs = (Tensor * 1)(), (Tensor * 2)()
    fill(inputs[0], X, "x")
    fill_output(outputs[0], Y, "y")
    fill_output(outputs[1], Z, "z")
    plan = Plan(inputs, outputs, ["x"], {"y": Y, "z": Z})
    other = np.ones((2, 3), np.float32)
    results, taken, given = plan.bind({"x": other})
    assert [(name, array.shape, array.dtype) for name, array in results.items()] == [
        ("y", (2, 1), np.dtype(np.int64)),
        ("z", (), np.dtype(np.float16)),
    ]
    assert [tensor.data for tensor in (*taken, *given)] == [
        array.__array_interface__["data"][0] for array in (other, *results.values())
    ]
    for before, after in zip((*inputs, *outputs), (*taken, *given), strict=True):
        after.data = before.data
        assert bytes(before) == bytes(after)


def test_calls_share_nothing_that_is_written_to() -> None:
    inputs, outputs = (Tensor * 1)(), (Tensor * 1)()
    fill(inputs[0], X, "x")
    fill_output(outputs[0], Y, "y")
    plan = Plan(inputs, outputs, ["x"], {"y": Y})
    (first, *_), (second, *_) = plan.bind({"x": X}), plan.bind({"x": X})
    assert not np.shares_memory(first["y"], second["y"])
    assert not np.shares_memory(first["y"], Y)
