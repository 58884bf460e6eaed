from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, insert_qdq, layer_site
from edgeformer.quantization.calibration import ChannelRange
from edgeformer.quantization.observation import observe, observe_channels
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.quantization.settings import IDENTITY, Sites, Transform
from edgeformer.quantization.smoothquant import amax_behind, apply_transforms, candidates, is_free
from tests.graph.precision_graphs import Builder, check, initializer, maker, run, snr_db
from tests.quantization.conftest import ArraySamples

MIN_MAX = ObserverSettings(kind="min_max")


def sites(model: onnx.ModelProto, *outputs: str) -> list[LayerSite]:
    index = GraphIndex(model)
    found = [layer_site(index, maker(model, output)) for output in outputs]
    return [site for site in found if isinstance(site, LayerSite)]


def seen(model: onnx.ModelProto, x: np.ndarray, *outputs: str) -> dict[str, ChannelRange]:
    return observe_channels(model, ArraySamples(x), sites(model, *outputs), batch_size=4)


def layers(model: onnx.ModelProto, *outputs: str) -> Sites:
    return Sites(GraphIndex(model), sites(model, *outputs), 11)


def applied(model: onnx.ModelProto, channels: dict[str, ChannelRange], *outputs: str) -> onnx.ModelProto:
    """The model with, for each activation, the first transform that is tried: the usual alpha of 0.5, or an offset."""
    found = layers(model, *outputs)
    first = {tensor: next(candidates(found, tensor, channels[tensor]), IDENTITY) for tensor in found.readers}
    return apply_transforms(found, first, frozenset(outputs))[0]


def smoothed(model: onnx.ModelProto, x: np.ndarray, *outputs: str) -> onnx.ModelProto:
    result = applied(model, seen(model, x, *outputs), *outputs)
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
    read = ("first_matmul", "second_matmul")
    assert int8_snr(result, X, *read) > int8_snr(model, X, *read) + 3
    assert "gamma" not in {tensor.name for tensor in result.graph.initializer}


def test_factors_follow_the_formula() -> None:
    b = Builder((2, 3, 4, 2))
    b.op("LayerNormalization", "input", b.const(np.ones(2)), b.const(np.zeros(2)), output="norm", axis=-1)
    weight = b.const(np.array([[1.0, 2.0], [0.5, 0.5]]), "w")
    b.op("Add", b.op("MatMul", "norm", weight, output="m"), b.const(np.zeros(2), "bias"), output="y")
    model = b.model("y")
    channels = {"norm": ChannelRange(minimum=(-8.0, 1.0), maximum=(8.0, 2.0))}
    result = applied(model, channels, "m")
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


@pytest.mark.parametrize("read", [("first_matmul",), ("first_matmul", "second_matmul")])
def test_norm_with_another_reader_is_left_and_its_result_transformed(read: tuple[str, ...]) -> None:
    model = uneven_norm(extra_reader=len(read) == 2)
    assert not is_free(layers(model, *read), "norm")
    result = smoothed(model, X, *read)
    assert list(maker(result, "norm").input) == list(maker(model, "norm").input)
    assert maker(result, "first_matmul").input[0] == maker(result, read[-1]).input[0] != "norm"
    assert maker(result, maker(result, "first_matmul").input[0]).op_type == "Add"
    assert int8_snr(result, X, *read) > int8_snr(model, X, *read) + 3


def test_gemm_with_a_transposed_weight() -> None:
    b = Builder((6, 8))
    gamma = b.const(np.geomspace(0.1, 10, 8), "gamma")
    norm = b.op("LayerNormalization", "input", gamma, b.normal(8), output="norm", axis=-1)
    b.op("Gemm", norm, b.normal(5, 8, name="w"), b.normal(5), output="y", transB=1)
    x = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)
    model = b.model("y")
    (norm_values,) = run(model, x, "norm")
    values = ChannelRange(
        minimum=tuple(map(float, norm_values.min(axis=0))), maximum=tuple(map(float, norm_values.max(axis=0)))
    )
    result = applied(model, {"norm": values}, "y")
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


def test_a_transform_that_changes_nothing_adds_no_node() -> None:
    b = Builder((4, 3, 16, 8))
    b.linear(b.op("Mul", "input", b.const(np.float32(2)), output="double"), 8, 6, "fc")
    model = b.model("fc")
    result, renamed = apply_transforms(layers(model, "fc_matmul"), {"double": IDENTITY}, frozenset({"fc_matmul"}))
    assert len(result.graph.node) == len(model.graph.node)
    assert renamed == {}


def test_a_padded_convolution_is_scaled_channel_by_channel_and_not_centred() -> None:
    b = Builder((4, 3, 16, 8))
    uneven = b.op("Mul", b.op("Gelu", "input"), b.const(np.array([1.0, 10, 100]).reshape(3, 1, 1)), output="uneven")
    b.conv(uneven, 3, 4, 3, "conv", pads=[1, 1, 1, 1])
    model = b.model("conv")
    result = smoothed(model, X, "conv")
    assert [node.op_type for node in result.graph.node] == ["Gelu", "Mul", "Mul", "Conv"]
    assert int8_snr(result, X, "conv") > int8_snr(model, X, "conv") + 0.5


def test_a_layer_that_stays_float_reads_what_it_read() -> None:
    b = Builder((4, 3, 16, 8))
    x = b.op("Gelu", "input", output="gelu")
    b.op("Add", b.linear(x, 8, 6, "fc"), b.linear(x, 8, 6, "float"), output="y")
    model = b.model("y")
    transform = Transform(scale=(2.0,) * 8, offset=(-1.0,) * 8)
    result, renamed = apply_transforms(
        layers(model, "fc_matmul", "float_matmul"), {"gelu": transform}, frozenset({"fc_matmul"})
    )
    assert maker(result, "fc_matmul").input[0] == renamed["gelu"] != "gelu"
    assert maker(result, "float_matmul").input[0] == "gelu"
    np.testing.assert_allclose(run(result, X)[0], run(model, X)[0], atol=1e-5)
    np.testing.assert_allclose(run(result, X, renamed["gelu"])[0], run(model, X, "gelu")[0] * 2 - 1, atol=1e-5)


def test_candidates_even_out_ever_more_and_leave_dead_channels() -> None:
    b = Builder((4, 3, 16, 8))
    b.linear(b.op("Mul", "input", b.const(np.float32(1)), output="x"), 8, 6, "fc")
    found = layers(b.model("fc"), "fc_matmul")
    ends = ChannelRange(minimum=(-1.0, -2, -4, -8, -16, -32, -64, 0), maximum=(1.0, 2, 4, 8, 16, 32, 64, 0))
    spread = []
    for transform in candidates(found, "x", ends):
        reach = np.array(ends.maximum) * transform.scales
        spread.append(reach[:7].max() / reach[:7].min())
        assert transform.scale[7] == 1.0
        assert amax_behind(transform, ends) == pytest.approx(reach.max(), rel=1e-6)
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_an_activation_of_one_value_has_nothing_to_even_out(value: float) -> None:
    b = Builder((4, 3, 16, 8))
    b.op("MatMul", b.op("Mul", "input", b.const(np.float32(1)), output="x"), b.normal(8, 6), output="m")
    ends = ChannelRange(minimum=(value,) * 8, maximum=(value,) * 8)
    found = layers(b.model("m"), "m")
    for transform in candidates(found, "x", ends):
        assert np.isfinite(transform.scales).all()
        assert amax_behind(transform, ends) >= 0


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
