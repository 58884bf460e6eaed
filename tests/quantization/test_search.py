"""Choosing by the network's outputs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
import pytest

from edgeformer.quantization import QuantizeResult, Recipe, load_recipe, quantize
from tests.graph.precision_graphs import Builder, run, snr_db, transformer
from tests.present import present
from tests.quantization.conftest import ArraySamples
from tests.quantization.test_quantize import PLAIN, images

MakeSamples = Callable[..., ArraySamples]
NONE = load_recipe().model_copy(update={"min_int8_share": 1.0})
STEPS = ("balance", "choose_ranges", "round_weights", "correct_bias")


def uneven() -> onnx.ModelProto:
    """Two Linears behind a GELU whose channels differ by two orders of magnitude."""
    b = Builder(("batch", 3, 8, 8))
    x = b.op("Transpose", b.conv("input", 3, 8, 1, "stem"), perm=[0, 2, 3, 1])
    x = b.op("Mul", x, b.const(np.geomspace(0.1, 10, 8)), output="uneven")
    x = b.linear(b.op("Gelu", x, output="gelu"), 8, 16, "fc1")
    b.op("Relu", b.linear(b.op("Gelu", x, output="gelu2"), 16, 8, "fc2"), output="y")
    return b.model("y")


def held_out_db(model: onnx.ModelProto, result: QuantizeResult, samples: ArraySamples) -> float:
    return snr_db(run(model, images(samples))[0], run(result.model, images(samples))[0])


@pytest.mark.parametrize("step", STEPS)
def test_a_step_alone_never_loses_to_plain_rounding_on_the_images_it_is_judged_by(
    make_samples: MakeSamples, step: str
) -> None:
    recipe = PLAIN.model_copy(update={step: True})
    calibration = quantize(transformer(), make_samples(48), recipe=recipe).calibration
    snr, plain = present(calibration.snr), present(calibration.plain_snr)
    assert snr.clean >= plain.clean
    assert present(snr.degraded) >= present(plain.degraded)


def test_all_steps_together_gain_on_other_images(make_samples: MakeSamples) -> None:
    model, samples = uneven(), make_samples(64, 8)
    plain = held_out_db(model, quantize(model, samples, recipe=PLAIN), make_samples(64, 8, seed=9))
    found = quantize(model, samples, recipe=NONE)
    assert held_out_db(model, found, make_samples(64, 8, seed=9)) > plain + 3
    # The GELU's channels are evened out in front of it.
    assert "gelu" in found.calibration.transforms
    assert len(found.calibration.transforms["gelu"].scale) == 8


def test_the_same_images_give_the_same_model(make_samples: MakeSamples) -> None:
    first, second = (quantize(uneven(), make_samples(16, 8), recipe=NONE) for _ in range(2))
    assert first.calibration == second.calibration
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("runs", [1, 40, 400])
def test_a_short_search_ends_early_and_gives_a_model_all_the_same(make_samples: MakeSamples, runs: int) -> None:
    recipe = load_recipe().model_copy(update={"search_runs": runs})
    result = quantize(transformer(), make_samples(32), recipe=recipe)
    snr, plain = present(result.calibration.snr), present(result.calibration.plain_snr)
    assert snr.clean >= plain.clean
    assert held_out_db(transformer(), result, make_samples(16, seed=3)) > 20


def test_a_layer_of_zeros_and_a_dead_input_are_survived(make_samples: MakeSamples) -> None:
    b = Builder(("batch", 3, 8, 8))
    x = b.op("Transpose", b.conv("input", 3, 8, 1, "stem"), perm=[0, 2, 3, 1])
    dead = b.op("Mul", x, b.const(np.zeros(8)), output="dead")
    y = b.op("Add", b.linear(dead, 8, 8, "reads_nothing"), x)
    y = b.op("Add", b.op("MatMul", y, b.const(np.zeros((8, 8)), "zeros"), output="of_zeros"), y)
    model = b.model(b.op("Relu", y, output="y"))
    plain = held_out_db(model, quantize(model, make_samples(24, 8), recipe=PLAIN), make_samples(16, 8, seed=2))
    found = held_out_db(model, quantize(model, make_samples(24, 8), recipe=NONE), make_samples(16, 8, seed=2))
    # One of the other images has values that no calibration image has.
    assert found > plain - 2


@pytest.mark.parametrize("share", [0.95, 0.7, 0.4])
def test_the_front_goes_down_to_the_share_and_the_best_trade_is_taken(make_samples: MakeSamples, share: float) -> None:
    recipe: Recipe = load_recipe().model_copy(update={"min_int8_share": share})
    calibration = quantize(transformer(), make_samples(48), recipe=recipe).calibration
    *front, last = calibration.front
    assert front[0].returned is None
    assert all(point.int8_share >= share for point in front[1:])
    assert all(point.int8_share < before.int8_share for before, point in pairwise(front))
    # Those that returned are the first of the walk.
    returned = [layer.output for layer in calibration.returned]
    assert returned == [point.returned for point in front[1 : len(returned) + 1]]
    assert last.finished
    assert (
        last.int8_share == front[len(returned)].int8_share == pytest.approx(present(calibration.int8_share), abs=1e-6)
    )


def test_a_return_has_to_be_worth_its_multiply_adds(make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe: Recipe = load_recipe().model_copy(update={"min_int8_share": 0.4})
    monkeypatch.setattr("edgeformer.quantization.search._WORTH_DB", 100.0)
    dear = quantize(transformer(), make_samples(24), recipe=recipe).calibration
    assert dear.returned == ()
    assert len(dear.front) > 2  # they were tried
    monkeypatch.setattr("edgeformer.quantization.search._WORTH_DB", 0.0)
    cheap = quantize(transformer(), make_samples(24), recipe=recipe).calibration
    assert len(cheap.returned) >= 1


@pytest.mark.parametrize("batch", [1, 3])
def test_a_model_of_fixed_batch_size_is_judged_on_as_many_images(make_samples: MakeSamples, batch: int) -> None:
    def network(size: int | str) -> onnx.ModelProto:
        b = Builder((size, 3, 8, 8))
        x = b.op("Transpose", b.conv("input", 3, 8, 1, "stem"), perm=[0, 2, 3, 1])
        b.op("Relu", b.linear(b.op("Gelu", x), 8, 8, "fc"), output="y")
        return b.model("y")

    recipe = NONE.model_copy(update={"search_runs": 1600})
    fixed, free = (quantize(network(size), make_samples(48, 8), recipe=recipe).calibration for size in (batch, "batch"))
    # Eight images are judged by in both; batches of three leave out two of them.
    close = 0.02 if batch == 1 else 1.0
    assert present(fixed.plain_snr).clean == pytest.approx(present(free.plain_snr).clean, abs=close)
