"""Trying layers in INT8 in one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.quantization import Override, quantize
from edgeformer.quantization.degradations import degraded
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import decide
from edgeformer.quantization.preparation import prepare
from edgeformer.quantization.quantize import _attention, _sites
from edgeformer.quantization.settings import Settings, Sites, Transform
from edgeformer.quantization.trial import Trial, snr_db
from tests.graph.precision_graphs import Builder, run, transformer
from tests.graph.precision_graphs import snr_db as measured_db
from tests.quantization.conftest import ArraySamples
from tests.quantization.test_quantize import LAYERS, PLAIN, images

MakeSamples = Callable[..., ArraySamples]
FLOAT = Settings(frozenset(), {})


def sites_of(model: onnx.ModelProto, *overrides: Override) -> Sites:
    index = GraphIndex(prepare(model))
    return Sites(index, _sites(index, decide(index.model, overrides)), 11)


def ranges_of(sites: Sites, samples: ArraySamples) -> dict[str, float]:
    return observe(sites.index.model, samples, sites.sites, observer=PLAIN.observer, batch_size=4).ranges


def test_layers_are_exactly_those_of_the_quantized_model(make_samples: MakeSamples) -> None:
    samples = make_samples(12)
    x = images(samples)
    sites = sites_of(transformer())
    trial = Trial(sites, (), [x[:8], x[8:]], [degraded(x[:8])])
    everything = quantize(transformer(), samples, recipe=PLAIN).model
    settings = Settings(frozenset(LAYERS), ranges_of(sites, samples))
    reference = run(transformer(), x)[0]
    np.testing.assert_allclose(trial.outputs(FLOAT, x)["logits"], reference, atol=1e-5)
    np.testing.assert_allclose(trial.outputs(settings, x)["logits"], run(everything, x)[0], atol=1e-4)
    noise = trial.noise(settings)
    assert noise.clean_db == pytest.approx(measured_db(reference, run(everything, x)[0]), abs=0.01)
    version = degraded(x[:8])
    expected = measured_db(run(transformer(), version)[0], run(everything, version)[0])
    assert noise.degraded_db == pytest.approx(expected, abs=0.01)
    assert noise.worse_db == min(noise.clean_db, noise.degraded_db)
    assert trial.noise(FLOAT).worse_db == trial.noise(FLOAT).typical_db == 200.0


def test_a_transform_changes_nothing_but_the_rounding(make_samples: MakeSamples) -> None:
    samples = make_samples(8)
    x = images(samples)
    sites = sites_of(transformer())
    trial = Trial(sites, (), [x])
    ranges = ranges_of(sites, samples)
    (fc2,) = (site for site in sites.sites if site.output == "fc2_matmul")
    channels = sites.weight(fc2).shape[0]
    transform = Transform(tuple(np.linspace(0.5, 2, channels)), tuple(np.linspace(-1, 1, channels)))
    # 2 ** 20 steps on each side: rounding is out of the way, but values beyond 127 steps are not.
    wide = {**ranges, fc2.activation: 1e6}
    coarse = Settings(frozenset({"fc2_matmul"}), ranges).with_transform(fc2.activation, transform, 4.0, ["fc2_matmul"])
    plain = Settings(frozenset({"fc2_matmul"}), ranges)
    assert wide[fc2.activation] > ranges[fc2.activation]
    assert 25 < trial.noise(coarse).clean_db < 100
    assert trial.noise(coarse).clean != trial.noise(plain).clean


class CountingSession:
    """A part of the model, and how often it ran."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.runs = 0

    @property
    def outputs(self) -> Any:
        return self.session.outputs

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs += 1
        found: dict[str, np.ndarray] = self.session.run(feeds)
        return found


@pytest.mark.parametrize("attention", [False, True])
def test_a_trial_starts_at_the_first_part_that_differs(make_samples: MakeSamples, attention: bool) -> None:
    index = GraphIndex(transformer())
    decisions = decide(index.model, quantize_attention=attention)
    sites, places = Sites(index, _sites(index, decisions), 11), _attention(index, decisions)
    samples = make_samples(8)
    slices = [part for place in places for part in place.parts]
    ranges = observe(index.model, samples, sites.sites, slices=slices, observer=PLAIN.observer, batch_size=4).ranges
    trial = Trial(sites, places, [images(samples)])
    parts = [CountingSession(session) for _, session in trial._parts]
    trial._parts = [(inputs, part) for (inputs, _), part in zip(trial._parts, parts, strict=True)]  # type: ignore[misc]

    def ran(settings: Settings) -> list[int]:
        for part in parts:
            part.runs = 0
        trial.noise(settings)
        return [part.runs for part in parts]

    layers = [*LAYERS[:2], *["bra_7"] * attention, *LAYERS[2:]]
    assert len(parts) == len(layers)
    for number, layer in enumerate(layers):
        chosen = Settings(frozenset({layer} - {"bra_7"}), ranges, attention=layer == "bra_7")
        starts = ran(chosen)
        # Only what can change runs. A range that is set before its layer is switched on is no reason to run it again.
        assert starts[number:] == [1] * (len(parts) - number)
    everything = Settings(frozenset(LAYERS), ranges)
    trial.settle(everything)
    assert ran(everything) == [0] * len(parts)
    assert ran(everything.without(["downsample"])) == [0] * (len(parts) - 1) + [1]
    before = trial.noise(everything)
    trial.settle(FLOAT)
    assert trial.noise(everything) == before


def test_a_model_of_fixed_batch_size_is_measured_on_full_batches(make_samples: MakeSamples) -> None:
    b = Builder((4, 3, 8, 8))
    b.op("Relu", b.conv("input", 3, 8, 1, "stem"), output="y")
    model = b.model("y")
    sites = sites_of(model, Override(name="stem", quantize=True, because="test"))
    samples = make_samples(6, 8)
    x = images(samples)
    trial = Trial(sites, (), [x[:3]])
    np.testing.assert_allclose(trial.outputs(FLOAT, x[:3])["y"], run(model, x[[0, 1, 2, 0]])[0], atol=1e-6)
    assert 30 < trial.noise(Settings(frozenset({"stem"}), ranges_of(sites, samples))).clean_db < 80


@pytest.mark.parametrize(
    ("noise", "db"), [(0.0, 200.0), (1.0, 0.0), (1e-4, 40.0), (1e-30, 200.0), (np.inf, -200.0), (np.nan, -200.0)]
)
def test_db_of_a_noise(noise: float, db: float) -> None:
    assert snr_db(noise) == pytest.approx(db)


def test_outputs_that_are_not_of_one_image_each_count_for_all(make_samples: MakeSamples) -> None:
    """A scalar, a list of what was found, and class scores."""
    b = Builder(("batch", 3, 8, 8))
    x = b.op("Relu", b.conv("input", 3, 8, 3, "stem", pads=[1, 1, 1, 1]), output="scores")
    b.op("ReduceMax", x, keepdims=0, output="largest")
    b.op("NonZero", b.op("Greater", x, b.const(np.float32(1.0))), output="found")
    sites = sites_of(b.model("scores", "largest", "found"), Override(name="stem", quantize=True, because="test"))
    samples = make_samples(6, 8)
    ranges = ranges_of(sites, samples)
    trial = Trial(sites, (), [images(samples)])
    noise = trial.noise(Settings(frozenset({"stem"}), ranges))
    # Rounding moves values over the border, so that more or fewer are found.
    assert noise.clean_db == -200.0
    assert trial.noise(FLOAT).worse_db == 200.0
