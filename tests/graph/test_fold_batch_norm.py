from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeformer.graph.fold_batch_norm import fold_batch_norm
from tests.graph.precision_graphs import Builder, check, initializer, run


def batch_norm(b: Builder, x: str, channels: int, output: str, epsilon: float = 1e-5) -> str:
    gamma, beta = b.const(b.rng.uniform(0.5, 2, channels)), b.normal(channels)
    mean, variance = b.normal(channels), b.const(b.rng.uniform(0.1, 3, channels))
    return b.op("BatchNormalization", x, gamma, beta, mean, variance, output=output, epsilon=epsilon)


def batch_norms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def assert_same(model: onnx.ModelProto, folded: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    check(folded)
    x = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    for expected, got in zip(run(model, x), run(folded, x), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("group", [1, 4])
def test_folds_into_the_convolution_before(group: int) -> None:
    b = Builder((2, 4, 7, 5))
    x = b.conv("input", 4, 8, 3, "conv", group=group, pads=[1, 1, 1, 1], strides=[2, 2])
    batch_norm(b, x, 8, "y", epsilon=1e-3)
    model = b.model("y")
    folded = fold_batch_norm(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert_same(model, folded, (2, 4, 7, 5))


def test_convolution_without_bias_gets_one() -> None:
    b = Builder((1, 2, 3, 3))
    conv = b.op("Conv", "input", b.const(np.full((1, 2, 1, 1), 3.0), "w"), output="conv")
    constants = [b.const(np.array([value])) for value in (2.0, 5.0, 1.0, 4.0)]
    b.op("BatchNormalization", conv, *constants, output="y", epsilon=0.0)
    folded = fold_batch_norm(b.model("y"))
    # gamma / sqrt(var) = 1; W = 3 * 1, bias = beta - mean * 1 = 4.
    assert initializer(folded, "w_folded").ravel().tolist() == [3.0, 3.0]
    assert initializer(folded, "w_folded_bias").tolist() == [4.0]


def test_folds_into_an_unpadded_convolution_behind() -> None:
    b = Builder((2, 4, 6, 6))
    x = batch_norm(b, "input", 4, "norm")
    b.conv(x, 4, 8, 2, "conv", strides=[2, 2])
    model = b.model("conv")
    folded = fold_batch_norm(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert_same(model, folded, (2, 4, 6, 6))


def test_stays_before_a_padded_convolution() -> None:
    b = Builder((2, 4, 6, 6))
    b.conv(batch_norm(b, "input", 4, "norm"), 4, 8, 3, "conv", pads=[1, 1, 1, 1])
    assert batch_norms(fold_batch_norm(b.model("conv"))) == 1


def test_stays_before_a_grouped_convolution() -> None:
    b = Builder((2, 4, 6, 6))
    b.conv(batch_norm(b, "input", 4, "norm"), 4, 4, 1, "conv", group=4)
    assert batch_norms(fold_batch_norm(b.model("conv"))) == 1


def test_stays_where_the_convolution_has_other_readers() -> None:
    b = Builder((2, 4, 6, 6))
    x = b.conv("input", 4, 4, 1, "conv")
    b.op("Add", x, batch_norm(b, x, 4, "norm"), output="y")
    model = b.model("y")
    folded = fold_batch_norm(model)
    assert batch_norms(folded) == 1
    assert_same(model, folded, (2, 4, 6, 6))


def test_stays_where_the_convolution_is_an_output() -> None:
    b = Builder((2, 4, 6, 6))
    batch_norm(b, b.conv("input", 4, 4, 1, "conv"), 4, "y")
    assert batch_norms(fold_batch_norm(b.model("conv", "y"))) == 1


def test_shared_weight_is_not_edited() -> None:
    b = Builder((2, 4, 6, 6))
    weight = b.normal(4, 4, 1, 1, name="w")
    x = batch_norm(b, b.op("Conv", "input", weight, output="first"), 4, "norm")
    b.op("Conv", b.op("Relu", x), weight, output="second")
    model = b.model("second")
    folded = fold_batch_norm(model)
    assert batch_norms(folded) == 0
    assert np.array_equal(initializer(folded, "w"), initializer(model, "w"))
    assert_same(model, folded, (2, 4, 6, 6))


def test_chain_of_both_kinds_folds_completely_and_leaves_the_original_alone() -> None:
    b = Builder((2, 4, 8, 8))
    x = batch_norm(b, b.conv("input", 4, 8, 3, "a", pads=[1, 1, 1, 1]), 8, "norm_a")
    x = batch_norm(b, b.op("Gelu", x), 8, "norm_b")
    b.conv(x, 8, 8, 2, "b", strides=[2, 2])
    model = b.model("b")
    before = model.SerializeToString(deterministic=True)
    folded = fold_batch_norm(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Gelu", "Conv"]
    assert_same(model, folded, (2, 4, 8, 8))
    assert model.SerializeToString(deterministic=True) == before
