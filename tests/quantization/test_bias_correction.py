"""Biases that take INT8's mean errors back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, insert_qdq, layer_site
from edgeformer.quantization.bias_correction import add_to_biases
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import decide
from edgeformer.quantization.preparation import prepare
from edgeformer.quantization.quantize import _sites
from edgeformer.quantization.settings import Settings, Sites
from edgeformer.quantization.trial import Trial
from tests.graph.precision_graphs import Builder, run
from tests.quantization.conftest import ArraySamples
from tests.quantization.test_quantize import PLAIN, images

MakeSamples = Callable[..., ArraySamples]


def test_biases_take_the_mean_error_away(make_samples: MakeSamples) -> None:
    b = Builder(("batch", 3, 12, 12))
    x = b.op("Relu", b.op("Add", "input", b.const(np.float32(3.0))), output="x")
    x = b.conv(x, 3, 8, 1, "conv")
    x = b.op("MatMul", b.op("Transpose", x, perm=[0, 2, 3, 1]), b.normal(8, 8), output="no_bias")
    b.op("Relu", x, output="y")
    index = GraphIndex(prepare(b.model("y")))
    sites = Sites(index, _sites(index, decide(index.model)), 11)
    samples = make_samples(32, 12)
    ranges = observe(index.model, samples, sites.sites, observer=PLAIN.observer, batch_size=8).ranges
    plain = Settings(frozenset(sites.of_output), ranges)
    batches = [batch.images for batch in samples.batches(8)]
    corrected = Trial(sites).corrected(plain, batches)
    assert set(corrected.biases) == {"conv", "no_bias"}
    quantized = insert_qdq(index.model, sites.sites, ranges)
    model = add_to_biases(insert_qdq(index.model, sites.sites, ranges), sites.sites, corrected.biases)
    for tensor, name, axes in (("conv", "conv", (0, 2, 3)), ("no_bias", "no_bias_biased", (0, 1, 2))):
        exact = run(index.model, images(samples), tensor)[0]
        before = np.abs((run(quantized, images(samples), tensor)[0] - exact).mean(axis=axes)).max()
        after = np.abs((run(model, images(samples), name)[0] - exact).mean(axis=axes)).max()
        # One after the other, so that nothing is left behind the second one either.
        assert after < 1e-3 * before


@pytest.mark.parametrize(("transposed", "alpha"), [(0, 1.0), (1, 1.0), (1, 0.5)])
def test_the_bias_of_a_gemm(make_samples: MakeSamples, transposed: int, alpha: float) -> None:
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
    settings = Settings(frozenset({"gemm"}), ranges)
    found = Trial(Sites(index, [site], 11)).corrected(settings, [images(samples)])
    batch = images(samples)
    difference = run(insert_qdq(model, [site], ranges), batch, "gemm")[0] - run(model, batch, "gemm")[0]
    np.testing.assert_allclose(found.biases["gemm"], -difference.mean(axis=0), atol=1e-6)
    assert np.abs(found.biases["gemm"]).max() > 1e-5
