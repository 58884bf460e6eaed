from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edgeformer.graph.qdq import QMAX, dequantize, min_max_weight
from edgeformer.runtime import OnnxSession
from edgeformer.verify.blocks.expectation import Quantized, Read, expected
from tests.runtime.conftest import make_model


def half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    with OnnxSession(model, optimization="basic") as session:
        return session.run({"x": x})["y"]


def linear(weight: np.ndarray) -> ModelProto:
    rows, columns = weight.shape
    return make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", rows])],
        [("y", TensorProto.FLOAT, ["n", columns])],
        {"w": weight},
    )


def random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_fp16_rounds_inputs_weights_and_results() -> None:
    x, weight = random(50, 8, seed=0), random(8, 4, seed=1)
    found = run(expected(linear(weight), {"y"}, "fp16"), x)
    want = half(half(x) @ half(weight))
    assert np.abs(found - want).max() <= np.abs(want).max() * 2.0**-11
    assert np.mean(found == want) > 0.95
    assert not np.array_equal(found, x @ weight)


def test_what_is_beyond_fp16_ends_at_its_limit() -> None:
    x = np.array([[1e9, -1e9]], np.float32)
    found = run(expected(linear(np.eye(2, dtype=np.float32)), {"y"}, "fp16"), x)
    np.testing.assert_array_equal(found, [[65504, -65504]])


def test_bf16_keeps_eight_bits() -> None:
    x = random(20, 3, seed=2)
    found = run(expected(linear(np.eye(3, dtype=np.float32)), {"y"}, "bf16"), x)
    error = np.abs(found - x) / np.abs(x)
    assert 2.0**-10 < error.max() <= 2.0**-8


@pytest.mark.parametrize("recorded", [True, False])
def test_int8_has_the_steps_of_calibration_or_those_of_the_largest(recorded: bool) -> None:
    x, weight = random(200, 8, seed=0), random(8, 4, seed=1)
    step = np.float32(1.5 / QMAX) if recorded else np.float32(np.abs(half(x)).max() / QMAX)
    quantized = Quantized(frozenset({"y"}), frozenset({"y"}), {"x": Read(np.asarray(step)) if recorded else Read()})
    found = run(expected(linear(weight), {"y"}, "int8", quantized), x)
    rounded = np.clip(np.rint(half(x) / step), -128, 127) * step
    want = rounded @ dequantize(min_max_weight(weight, 1), 1)
    np.testing.assert_allclose(found, want, rtol=2e-3, atol=2e-3)
    # The steps are what tells: those of half the range would be far off.
    assert np.abs(found - x @ weight).max() > 10 * np.abs(found - want).max()


def test_smoothquant_is_undone_exactly() -> None:
    """Shift and factor of a norm change what is rounded, and nothing else."""
    x, weight = random(200, 6, seed=0), random(6, 4, seed=1)
    shift, factor = random(6, seed=2), np.abs(random(6, seed=3)) + np.float32(0.5)
    fine = Read(np.asarray(np.float32(1e-1)), shift, factor)
    quantized = Quantized(frozenset({"y"}), frozenset({"y"}), {"x": fine})
    found = run(expected(linear(weight), {"y"}, "int8", quantized), x)
    even = np.rint((half(x) + shift) / factor / fine.step) * fine.step
    want = even @ dequantize(min_max_weight(weight * factor[:, None], 1), 1) - shift @ weight
    np.testing.assert_allclose(found, want, rtol=2e-3, atol=4e-3)


def test_the_factors_of_a_convolutions_channels_are_undone_in_its_weight() -> None:
    x, weight = random(3, 4, 5, 6, seed=0), random(2, 4, 1, 1, seed=1)
    model = make_model(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 4, 5, 6])],
        [("y", TensorProto.FLOAT, ["n", 2, 5, 6])],
        {"w": weight},
    )
    factor = np.array([0.5, 1, 2, 4], np.float32).reshape(4, 1, 1)
    step = np.float32(0.1)
    read = Read(np.asarray(step), None, factor)
    found = run(expected(model, {"y"}, "int8", Quantized(frozenset({"y"}), frozenset({"y"}), {"x": read})), x)
    even = np.rint(half(x) / factor / step) * step
    rounded = dequantize(min_max_weight(weight * factor.reshape(1, 4, 1, 1), 0), 0)
    np.testing.assert_allclose(found, np.einsum("nchw,oc->nohw", even, rounded[:, :, 0, 0]), rtol=2e-3, atol=4e-3)


def test_nodes_that_are_no_layers_get_the_tensor_back() -> None:
    model = make_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("y", TensorProto.FLOAT, ["n", 2])],
    )
    x = np.array([[0.26, -0.26]], np.float32)
    read = Read(np.asarray(np.float32(0.5)), np.asarray(np.float32(0.125)), np.array([1.0, 2.0], np.float32))
    found = run(expected(model, {"y"}, "int8", Quantized(frozenset({"y"}), reads={"x": read})), x)
    # (0.26 + 0.125) / 0.5 is a step, (-0.26 + 0.125) / 2 / 0.5 none.
    np.testing.assert_allclose(found, [[0.5 - 0.125, -0.125]])
