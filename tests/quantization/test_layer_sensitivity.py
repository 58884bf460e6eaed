from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.multiply_adds import multiply_adds
from edgeformer.graph.qdq import LayerSite, insert_qdq, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization import layer_sensitivity
from edgeformer.quantization.degradations import degraded
from edgeformer.quantization.layer_sensitivity import measure_layers
from edgeformer.quantization.recipe import ObserverSettings, Override, Recipe
from edgeformer.quantization.trial import snr_db
from edgeformer.records.sensitivity import SensitivityReport
from edgeformer.runtime.onnx_session import session_threads
from tests.graph.precision_graphs import Builder, run, transformer
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

RECIPE = Recipe(name="plain", observer=ObserverSettings(kind="min_max"))
QUANTIZED = {"stem", "qkv_matmul", "wo_matmul", "fc1_matmul", "fc2_matmul", "downsample"}


def images(count: int = 8) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(count, 3, 1, 1)) + 0.5 * rng.normal(size=(count, 3, 16, 16))).astype(np.float32)


def measured(given: np.ndarray[Any, Any] | None = None, **more: Any) -> SensitivityReport:
    samples = ArraySamples(images() if given is None else given)
    return measure_layers(transformer(), samples, **{"recipe": RECIPE, **more})


def test_each_layer_is_measured_as_the_graph_with_it_alone_in_int8_computes() -> None:
    report = measured()
    model = transformer()
    index = GraphIndex(model)
    shown = images()
    kinds = (shown, degraded(shown, 0))
    assert {layer.output for layer in report.layers} == QUANTIZED
    for layer in report.layers:
        site = layer_site(index, index.producer[layer.output])
        assert isinstance(site, LayerSite)
        seen = shown if site.activation == "input" else run(model, shown, site.activation)[0]
        quantized = insert_qdq(model, [site], {site.activation: float(np.abs(seen).max())})
        expected = []
        for batch in kinds:
            reference, found = run(model, batch)[0].astype(np.float64), run(quantized, batch)[0]
            expected.append(snr_db(float(((reference - found) ** 2).sum() / (reference**2).sum())))
        assert (layer.snr_clean_db, layer.snr_degraded_db) == pytest.approx(expected, abs=0.05)


def test_layers_are_ranked_and_have_their_multiply_adds() -> None:
    report = measured()
    values = [layer.snr_db for layer in report.layers]
    assert values == sorted(values)
    counts = multiply_adds(transformer())
    assert {layer.output: layer.multiply_adds for layer in report.layers} == {name: counts[name] for name in QUANTIZED}
    assert report.multiply_adds == sum(count or 0 for count in counts.values())
    assert (report.images, report.recipe) == (8, "plain")


def test_attention_is_one_row() -> None:
    report = measured(recipe=RECIPE.model_copy(update={"quantize_attention": True}))
    (row,) = (layer for layer in report.layers if layer.op == bra.OP_TYPE)
    assert (row.node, row.output) == ("attention of 1 block", "bra_7")
    assert row.multiply_adds == multiply_adds(transformer())["bra_7"]
    assert 20 < row.snr_db < 80
    # Alone: the layers' figures are those without INT8 attention.
    assert tuple(layer for layer in report.layers if layer != row) == measured().layers


def test_without_degraded_images_and_with_fewer_images() -> None:
    report = measured(images(20), images=3, degrade=False)
    assert report.images == 3
    assert all(layer.snr_degraded_db is None for layer in report.layers)
    assert measured(images(20)).images == 20
    assert measured(images(40)).images == 32


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    expected = measured()
    with session_threads(threads):
        assert measured() == expected


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4])
def test_a_measurement_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    path = tmp_path / "state.json"
    expected = measured()
    asked: list[str] = []
    noise = layer_sensitivity._Meter.noise

    def counting(self: Any, layer: str) -> tuple[float, ...]:
        if len(asked) == after:
            asked.append(layer)
            raise Killed
        asked.append(layer)
        return noise(self, layer)

    monkeypatch.setattr(layer_sensitivity._Meter, "noise", counting)
    with pytest.raises(Killed):
        measured(state_file=path)
    assert len(asked) == after + 1

    def unwanted(*_: Any, **__: Any) -> Any:
        raise AssertionError("the ranges are known")

    monkeypatch.setattr(layer_sensitivity, "observe", unwanted)
    assert measured(state_file=path) == expected
    # What was in flight is measured again, and nothing else.
    assert sorted(asked) == sorted([*QUANTIZED, asked[after]])
    asked.clear()
    assert measured(state_file=path) == expected
    assert asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": Recipe(name="x", observer=ObserverSettings(kind="mse"))},
        {"given": images(9)},
        {"images": 4},
        {"degrade": False},
    ],
)
def test_a_state_of_other_choices_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "state.json"
    measured(state_file=path)
    with raises("EF564", path):
        measured(state_file=path, **change)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    measured(progress=lambda *what: told.append(what))
    layers = [what for what in told if what[0] == "measuring layers"]
    assert layers == [("measuring layers", number, 6) for number in range(1, 7)]


def test_images_that_make_no_numbers() -> None:
    broken = images()
    broken[2, 0, 0, 0] = np.nan
    with raises("EF508", "images 0 to 7"):
        measured(broken)


def test_outputs_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Degraded images may overflow what the images did not."""
    monkeypatch.setattr(layer_sensitivity, "degraded", lambda batch, seed: np.full_like(batch, 3e38))
    with raises("EF508", "degraded versions of calibration images", "'logits'"):
        measured()


def test_one_image_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report = measured(images(1))
    assert report.images == 1
    assert "one image" in caplog.text


def test_nothing_to_quantize() -> None:
    nothing = Recipe(name="x", overrides=(Override(quantize=False, because="no"),))
    with raises("EF504", "nothing in this model"):
        measured(recipe=nothing)


def test_images_of_another_size() -> None:
    with raises("EF507", "[8, 3, 16, 20]"):
        measured(np.zeros((8, 3, 16, 20), np.float32))


def test_a_fixed_batch_gives_what_a_free_one_gives(make_samples: Callable[..., ArraySamples]) -> None:
    fixed = transformer()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    found = measure_layers(fixed, ArraySamples(images()), recipe=RECIPE)
    for one, other in zip(found.layers, measured().layers, strict=True):
        assert (one.output, one.multiply_adds) == (other.output, other.multiply_adds)
        assert one.snr_db == pytest.approx(other.snr_db, abs=1e-6)


def test_a_model_that_takes_no_images_is_measured_on_clean_arrays(caplog: pytest.LogCaptureFixture) -> None:
    b = Builder(("batch", 6))
    b.op("Gelu", b.linear(b.op("Gelu", b.linear("input", 6, 12, "fc1")), 12, 5, "fc2"), output="y")
    given = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    with caplog.at_level(logging.WARNING):
        report = measure_layers(b.model("y"), ArraySamples(given), recipe=RECIPE)
    assert [layer.snr_degraded_db for layer in report.layers] == [None] * 2
    assert {layer.output: layer.multiply_adds for layer in report.layers} == {"fc1_matmul": 72, "fc2_matmul": 60}
    assert "takes no images" in caplog.text
