"""GPTQ, and scales with the least error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, dequantize, layer_site, min_max_weight
from edgeformer.quantization.rounding import gptq, least_error_scales, moments, rounded_weight
from edgeformer.quantization.settings import Settings, Sites, Transform
from tests.graph.precision_graphs import Builder, run


def correlated(rows: int, inputs: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 3)) @ random.normal(size=(3, inputs)) + 0.2 * random.normal(size=(rows, inputs))


@pytest.mark.parametrize("inputs", [1, 7, 64, 65, 130])
def test_gptq_changes_outputs_less_than_rounding_to_the_nearest(inputs: int) -> None:
    x, matrix = correlated(500, inputs), np.random.default_rng(1).normal(size=(inputs, 9))
    scales = np.abs(matrix).max(axis=0) / 127
    values = gptq(matrix, x.T @ x / len(x), scales)
    assert values.dtype == np.int8
    assert values.shape == matrix.shape
    assert np.abs(values).max() <= 127
    error = ((x @ (values * scales - matrix)) ** 2).mean()
    nearest = ((x @ (np.rint(matrix / scales) * scales - matrix)) ** 2).mean()
    assert error <= nearest * (1.001 if inputs == 1 else 0.5)


def test_gptq_of_what_is_not_correlated_rounds_to_the_nearest() -> None:
    matrix = np.random.default_rng(1).normal(size=(20, 5))
    scales = np.abs(matrix).max(axis=0) / 127
    assert np.array_equal(gptq(matrix, np.eye(20), scales), np.rint(matrix / scales))


def test_gptq_of_an_activation_that_is_always_zero_rounds_to_the_nearest() -> None:
    matrix = np.random.default_rng(1).normal(size=(20, 5))
    scales = np.float64(np.float32(np.abs(matrix).max(axis=0) / 127))
    assert np.array_equal(gptq(matrix, np.zeros((20, 20)), scales), np.rint(matrix / scales))


def test_scales_of_least_error_are_never_worse_and_fit_an_outlier() -> None:
    random = np.random.default_rng(2)
    matrix = random.normal(size=(200, 4)) * 0.01
    matrix[0, 1] = 0.05
    matrix[:, 2] = 0
    found, largest = least_error_scales(matrix, 11), min_max_weight(matrix, 1).scales

    def error(scales: np.ndarray) -> np.ndarray:
        return np.asarray(((np.clip(np.rint(matrix / scales), -127, 127) * scales - matrix) ** 2).sum(axis=0))

    assert (error(found) <= error(largest) + 1e-18).all()
    assert found[2] == largest[2] == 2.0**-24
    # Eleven significant bits, as FP16 has them.
    assert np.array_equal(found, found.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (1, {}),
        (3, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        (3, {"pads": [0, 1, 2, 0]}),
        (2, {"dilations": [3, 2], "pads": [1, 0, 1, 0]}),
    ],
)
def test_moments_of_a_convolutions_patches_are_those_of_its_outputs(kernel: int, attributes: dict[str, Any]) -> None:
    b = Builder((4, 3, 9, 7))
    b.conv("input", 3, 5, kernel, "conv", **attributes)
    model = b.model("conv")
    index = GraphIndex(model)
    site = layer_site(index, index.producer["conv"])
    assert isinstance(site, LayerSite)
    sites = Sites(index, [site], 11)
    x = np.random.default_rng(0).normal(size=(4, 3, 9, 7)).astype(np.float32)
    # So fine that rounding does not show.
    settings = Settings(frozenset({"conv"}), {"input": 10.0})
    seen = moments(sites, settings, [x[:3], x[3:]], len(x))["conv"]
    outputs = run(model, x)[0].transpose(0, 2, 3, 1).reshape(-1, 5).astype(np.float64)
    rows = sites.rows(site)
    # What it reads and its weight give the covariance of what it makes, all positions counted once.
    np.testing.assert_allclose(rows.T @ seen @ rows, np.cov(outputs.T, bias=True), rtol=0.05, atol=0.05)


def test_a_grouped_convolution_has_none() -> None:
    b = Builder((2, 4, 6, 6))
    weight = b.normal(4, 1, 3, 3, name="w")
    b.op("Conv", "input", weight, output="conv", group=4)
    index = GraphIndex(b.model("conv"))
    site = layer_site(index, index.producer["conv"])
    assert isinstance(site, LayerSite)
    settings = Settings(frozenset({"conv"}), {"input": 1.0})
    assert moments(Sites(index, [site], 11), settings, [np.zeros((2, 4, 6, 6), np.float32)], 2) == {}


@pytest.mark.parametrize("scales", ["min_max", "mse"])
@pytest.mark.parametrize("transform", [Transform(), Transform((0.5,) * 8, (1.0,) * 8), Transform(offset=(0.25,))])
def test_a_rounded_weight_serves_its_layer_better(scales: str, transform: Transform) -> None:
    b = Builder(("batch", 8))
    b.op("MatMul", b.op("Mul", "input", b.const(np.float32(1)), output="x"), b.normal(8, 6, name="w"), output="y")
    model = b.model("y")
    index = GraphIndex(model)
    site = layer_site(index, index.producer["y"])
    assert isinstance(site, LayerSite)
    sites = Sites(index, [site], 11)
    x = correlated(64, 8).astype(np.float32)
    settings = Settings(frozenset({"y"}), {"x": float(np.abs(x).max()) + 1}, {"x": transform})
    seen = moments(sites, settings, [x], len(x))["y"]
    found = rounded_weight(sites, site, settings, seen, scales=scales)
    weight, _ = sites.transformed(site, transform)
    moved = x * transform.scales + transform.offsets
    moved = moved - moved.mean(axis=0)
    errors = [((moved @ (dequantize(one, 1) - weight)) ** 2).mean() for one in (found, sites.quantized(site, settings))]
    assert errors[0] < 0.8 * errors[1]
