from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, insert_qdq, layer_site
from edgeformer.quantization.calibration import ChannelRange
from edgeformer.quantization.observation import observe, observe_channels
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.quantization.smoothquant import apply_smoothquant
from tests.graph.precision_graphs import Builder, check, initializer, maker, run, snr_db
from tests.quantization.conftest import ArraySamples

MIN_MAX = ObserverSettings(kind="min_max")


def sites(model: onnx.ModelProto, *outputs: str) -> list[LayerSite]:
    index = GraphIndex(model)
    found = [layer_site(index, maker(model, output)) for output in outputs]
    return [site for site in found if isinstance(site, LayerSite)]


def seen(model: onnx.ModelProto, x: np.ndarray, *outputs: str) -> dict[str, ChannelRange]:
    return observe_channels(model, ArraySamples(x), sites(model, *outputs), batch_size=4)


def smoothed(model: onnx.ModelProto, x: np.ndarray, *outputs: str) -> onnx.ModelProto:
    result = apply_smoothquant(model, sites(model, *outputs), seen(model, x, *outputs))
    check(result)
    np.testing.assert_allclose(run(result, x)[0], run(model, x)[0], atol=1e-5 * np.abs(run(model, x)[0]).max())
    return result


def int8_snr(model: onnx.ModelProto, x: np.ndarray, *outputs: str) -> float:
    found = observe(model, ArraySamples(x), sites(model, *outputs), observer=MIN_MAX, batch_size=4)
    quantized = insert_qdq(model, sites(model, *outputs), found.ranges)
    return snr_db(run(model, x)[0], run(quantized, x)[0])


def uneven_norm(*, bias: bool = True, extra_reader: bool = False) -> onnx.ModelProto:
    """A LayerNorm with one channel far larger than the others and one far off zero, before two Linears."""
    b = Builder((4, 3, 16, 8))
    gamma, beta = np.ones(8), np.zeros(8)
    gamma[2], beta[5] = 30, 20
    norm = b.op("LayerNormalization", "input", b.const(gamma, "gamma"), b.const(beta, "beta"), output="norm", axis=-1)
    if bias:
        first, second = b.linear(norm, 8, 6, "first"), b.linear(norm, 8, 6, "second")
    else:
        first = b.op("MatMul", norm, b.normal(8, 6, name="first.weight"), output="first_matmul")
        second = b.op("MatMul", norm, b.normal(8, 6, name="second.weight"), output="second_matmul")
    y = b.op("Add", first, second, output="y")
    return b.model(b.op("Add", y, b.op("ReduceMean", norm), output="z") if extra_reader else y)


X = np.random.default_rng(0).normal(size=(4, 3, 16, 8)).astype(np.float32)


def test_norm_and_linears_keep_their_result_and_gain_accuracy() -> None:
    model = uneven_norm()
    result = smoothed(model, X, "first_matmul", "second_matmul")
    (norm,) = run(result, X, "norm")
    low, high = norm.min(axis=(0, 1, 2)), norm.max(axis=(0, 1, 2))
    # Every channel is centred, and none is far larger than the rest any more.
    np.testing.assert_allclose(low, -high, rtol=1e-3)
    assert high.max() / np.median(high) < 8
    layers = ("first_matmul", "second_matmul")
    assert int8_snr(result, X, *layers) > int8_snr(model, X, *layers) + 3
    assert "gamma" not in {tensor.name for tensor in result.graph.initializer}


def test_factors_follow_the_formula() -> None:
    b = Builder((2, 3, 4, 2))
    b.op("LayerNormalization", "input", b.const(np.ones(2)), b.const(np.zeros(2)), output="norm", axis=-1)
    weight = b.const(np.array([[1.0, 2.0], [0.5, 0.5]]), "w")
    b.op("Add", b.op("MatMul", "norm", weight, output="m"), b.const(np.zeros(2), "bias"), output="y")
    model = b.model("y")
    from edgeformer.quantization.calibration import ChannelRange

    channels = {"norm": ChannelRange(minimum=(-8.0, 1.0), maximum=(8.0, 2.0))}
    result = apply_smoothquant(model, sites(model, "m"), channels)
    # r = (8, 0.5), w = (2, 0.5): sqrt(r / w) = (2, 1), scaled to a geometric mean of 1; c = (0, 1.5).
    factor = np.array([2.0, 1.0]) / np.sqrt(2)
    gamma, beta = (initializer(result, name) for name in maker(result, "norm").input[1:3])
    np.testing.assert_allclose(gamma, 1 / factor, rtol=1e-6)
    np.testing.assert_allclose(beta, np.array([0, -1.5]) / factor, rtol=1e-6)
    rows = np.array([[1.0, 2.0], [0.5, 0.5]]) * factor[:, None]
    np.testing.assert_allclose(initializer(result, maker(result, "m").input[1]), rows, rtol=1e-6)
    np.testing.assert_allclose(initializer(result, maker(result, "y").input[1]), [0.75, 0.75], rtol=1e-6)


def test_without_a_bias_only_the_scale_moves() -> None:
    model = uneven_norm(bias=False)
    result = smoothed(model, X, "first_matmul", "second_matmul")
    (norm,) = run(result, X, "norm")
    assert np.abs(norm).max(axis=(0, 1, 2)).max() < np.abs(run(model, X, "norm")[0]).max()
    assert len(result.graph.node) == len(model.graph.node)


@pytest.mark.parametrize("layers", [("first_matmul",), ("first_matmul", "second_matmul")])
def test_norm_with_a_reader_that_stays_float_is_left(layers: tuple[str, ...]) -> None:
    model = uneven_norm(extra_reader=len(layers) == 2)
    result = smoothed(model, X, *layers)
    assert list(maker(result, "norm").input) == list(maker(model, "norm").input)


def test_gemm_with_a_transposed_weight() -> None:
    b = Builder((6, 8))
    gamma = b.const(np.geomspace(0.1, 10, 8), "gamma")
    norm = b.op("LayerNormalization", "input", gamma, b.normal(8), output="norm", axis=-1)
    b.op("Gemm", norm, b.normal(5, 8, name="w"), b.normal(5), output="y", transB=1)
    x = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)
    model = b.model("y")
    index = GraphIndex(model)
    (site,) = [s for s in [layer_site(index, maker(model, "y"))] if isinstance(s, LayerSite)]
    from edgeformer.quantization.calibration import ChannelRange

    (norm_values,) = run(model, x, "norm")
    values = ChannelRange(
        minimum=tuple(map(float, norm_values.min(axis=0))), maximum=tuple(map(float, norm_values.max(axis=0)))
    )
    result = apply_smoothquant(model, [site], {"norm": values})
    assert initializer(result, maker(result, "y").input[1]).shape == (5, 8)
    np.testing.assert_allclose(run(result, x)[0], run(model, x)[0], atol=1e-5 * np.abs(run(model, x)[0]).max())


def test_one_sided_activation_is_centred_before_a_linear() -> None:
    b = Builder((4, 3, 16, 8))
    x = b.op("Gelu", "input", output="gelu")
    b.op("Add", b.linear(x, 8, 6, "fc"), b.op("ReduceMean", x), output="y")
    model = b.model("y")
    result = smoothed(model, X * 2, "fc_matmul")
    centred = maker(result, "fc_matmul").input[0]
    (values,) = run(result, X * 2, centred)
    assert values.max() == pytest.approx(-values.min(), rel=1e-4)
    # The other reader still sees the activation as it was.
    assert maker(result, maker(result, "y").input[1]).input[0] == "gelu"
    # Half the range is 6 dB for the activation; the weight's error stays.
    assert int8_snr(result, X * 2, "fc_matmul") > int8_snr(model, X * 2, "fc_matmul") + 2


def test_even_activation_gets_no_extra_node() -> None:
    b = Builder((4, 3, 16, 8))
    b.linear(b.op("Mul", "input", b.const(np.float32(2))), 8, 6, "fc")
    model = b.model("fc")
    assert len(smoothed(model, X, "fc_matmul").graph.node) == len(model.graph.node)


def test_padded_convolution_is_not_centred() -> None:
    b = Builder((4, 3, 16, 8))
    b.conv(b.op("Gelu", "input"), 3, 4, 3, "conv", pads=[1, 1, 1, 1])
    model = b.model("conv")
    assert len(smoothed(model, X, "conv").graph.node) == len(model.graph.node)


def test_shared_weight_is_copied() -> None:
    b = Builder((4, 3, 16, 8))
    gamma = b.const(np.geomspace(0.1, 10, 8))
    norm = b.op("LayerNormalization", "input", gamma, b.normal(8), output="norm", axis=-1)
    weight = b.normal(8, 8, name="shared")
    first = b.op("Add", b.op("MatMul", norm, weight, output="m"), b.normal(8), output="first")
    b.op("MatMul", first, weight, output="y")
    model = b.model("y")
    result = smoothed(model, X, "m")
    assert np.array_equal(initializer(result, "shared"), initializer(model, "shared"))
    assert maker(result, "y").input[1] == "shared"
