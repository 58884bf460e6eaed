"""Measuring and correcting the mean errors of INT8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, insert_qdq, layer_site
from edgeformer.quantization import Recipe, quantize
from edgeformer.quantization.bias_correction import mean_errors
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import decide
from edgeformer.quantization.quantize import _prepare, _sites
from tests.graph.precision_graphs import Builder, run, transformer
from tests.quantization.conftest import ArraySamples
from tests.quantization.test_quantize import LAYERS, PLAIN, images

MakeSamples = Callable[..., ArraySamples]


def test_bias_correction_takes_the_mean_error_away(make_samples: MakeSamples) -> None:
    b = Builder(("batch", 3, 12, 12))
    x = b.op("Relu", b.op("Add", "input", b.const(np.float32(3.0))), output="x")
    x = b.conv(x, 3, 8, 1, "conv")
    x = b.op("MatMul", b.op("Transpose", x, perm=[0, 2, 3, 1]), b.normal(8, 8), output="no_bias")
    b.op("Relu", x, output="y")
    model = b.model("y")
    samples = make_samples(32, 12)

    def mean_error(recipe: Recipe, tensor: str) -> float:
        result = quantize(model, samples, recipe=recipe).model
        if tensor == "no_bias" and recipe.correct_bias:
            tensor = "no_bias_biased"
        axes = (0, 2, 3) if tensor == "conv" else (0, 1, 2)
        original = "no_bias" if tensor.startswith("no_bias") else tensor
        difference = run(result, images(samples), tensor)[0] - run(model, images(samples), original)[0]
        return float(np.abs(difference.mean(axis=axes)).max())

    corrected = PLAIN.model_copy(update={"correct_bias": True})
    assert mean_error(corrected, "conv") < 0.05 * mean_error(PLAIN, "conv")
    # What is left behind the second layer is what the first one's noise, seen through rounding, adds.
    assert mean_error(corrected, "no_bias") < 0.3 * mean_error(PLAIN, "no_bias")


@pytest.mark.parametrize("layer", LAYERS)
def test_bias_errors_are_those_of_the_layer(make_samples: MakeSamples, layer: str) -> None:
    model = _prepare(transformer())
    samples = make_samples(10)
    sites = _sites(GraphIndex(model), decide(model))
    ranges = observe(model, samples, sites, observer=PLAIN.observer, batch_size=4).ranges
    errors = mean_errors(model, samples, sites, ranges, batch_size=4)
    assert set(errors) == set(LAYERS)
    (site,) = (site for site in sites if site.output == layer)
    alone = insert_qdq(model, [site], ranges)
    x = images(samples)
    axes = (0, 2, 3) if layer in ("stem", "downsample") else (0, 1, 2)
    difference = run(alone, x, layer)[0].astype(np.float64) - run(model, x, layer)[0]
    np.testing.assert_allclose(errors[layer], difference.mean(axis=axes), atol=2e-7)


@pytest.mark.parametrize(("transposed", "alpha"), [(0, 1.0), (1, 1.0), (1, 0.5)])
def test_bias_errors_of_a_gemm(make_samples: MakeSamples, transposed: int, alpha: float) -> None:
    b = Builder(("batch", 3, 4, 4))
    x = b.op("Flatten", b.op("Relu", "input"), output="flat")
    weight = b.normal(*((6, 48) if transposed else (48, 6)))
    b.op("Gemm", x, weight, b.normal(6), transB=transposed, alpha=alpha, output="gemm")
    b.op("Mul", "gemm", "gemm", output="y")
    model = b.model("y")
    index = GraphIndex(model)
    site = layer_site(index, index.producer["gemm"])
    assert isinstance(site, LayerSite)
    samples = make_samples(10, 4)
    ranges = observe(model, samples, [site], observer=PLAIN.observer, batch_size=4).ranges
    errors = mean_errors(model, samples, [site], ranges, batch_size=4)
    batch = images(samples)
    difference = run(insert_qdq(model, [site], ranges), batch, "gemm")[0] - run(model, batch, "gemm")[0]
    np.testing.assert_allclose(errors["gemm"], difference.mean(axis=0), atol=1e-6)
    assert np.abs(errors["gemm"]).max() > 1e-4
