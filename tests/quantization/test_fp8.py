"""FP8 weights and activations: calibrated by the largest magnitude, Linears unless a recipe says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeformer.graph.qdq_types import fp8_scale
from edgeformer.graph.types import to_float_type
from edgeformer.quantization import Override
from edgeformer.quantization.fp8 import quantize_fp8
from tests.graph.precision_graphs import check, initializer, run, snr_db, transformer
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

MakeSamples = Callable[..., ArraySamples]
LINEARS = {"qkv_matmul", "wo_matmul", "fc1_matmul", "fc2_matmul"}


def images(samples: ArraySamples) -> np.ndarray:
    return next(iter(samples.batches(10_000))).images


def test_linears_read_fp8_with_the_ranges_of_calibration(make_samples: MakeSamples) -> None:
    model = transformer()
    result = quantize_fp8(model, make_samples(24))
    check(result.model)
    assert {item.output for item in result.decisions if item.quantized} == LINEARS
    assert result.calibration is not None
    assert result.calibration.images == 24
    assert not result.reused
    made = {node.output[0]: node for node in result.model.graph.node}
    pairs = [node for node in result.model.graph.node if node.op_type == "QuantizeLinear"]
    assert {node.input[0] for node in pairs} == set(result.calibration.ranges)
    for node in pairs:
        scale = initializer(result.model, node.input[1])
        assert scale == fp8_scale(result.calibration.ranges[node.input[0]])
    assert sum(node.op_type == "DequantizeLinear" for node in made.values()) == len(pairs) + 4
    assert {name for one in result.activations for name in one.layers} == {
        item.node for item in result.decisions if item.quantized
    }
    held_out = images(make_samples(8, seed=1))
    reference, found = run(model, held_out)[0], run(result.model, held_out)[0]
    assert snr_db(reference, found) > 20
    typed = to_float_type(result.model, "float16")
    check(typed)
    assert snr_db(reference, run(typed, held_out)[0]) > 20


def test_an_override_takes_a_convolution_in(make_samples: MakeSamples) -> None:
    overrides = [Override(name="*stem*", op_type="Conv", quantize=True, because="try")]
    result = quantize_fp8(transformer(), make_samples(8), overrides=overrides)
    check(result.model)
    assert {item.output for item in result.decisions if item.quantized} == LINEARS | {"stem"}
    left = {item.output: item.because for item in result.decisions if item.op_type == "Conv"}
    assert "matrix products" in left["downsample"]


def test_the_calibration_is_kept_and_used_again(make_samples: MakeSamples, tmp_path: Path) -> None:
    cache = tmp_path / "calibration.json"
    first = quantize_fp8(transformer(), make_samples(8), calibration_cache=cache)
    second = quantize_fp8(transformer(), make_samples(8), calibration_cache=cache)
    assert (first.reused, second.reused) == (False, True)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    with raises("EF506", "calibration data"):
        quantize_fp8(transformer(), make_samples(8, seed=9), calibration_cache=cache)


def test_it_needs_images() -> None:
    with raises("EF103", "FP8"):
        quantize_fp8(transformer(), None)


def test_images_that_are_not_finite_are_refused(make_samples: MakeSamples) -> None:
    samples = make_samples(4)
    images(samples)[0, 0, 0, 0] = np.nan
    with raises("EF508", "NaN"):
        quantize_fp8(transformer(), samples)


@pytest.mark.parametrize("count", [1])
def test_one_image_is_enough(make_samples: MakeSamples, count: int) -> None:
    check(quantize_fp8(transformer(), make_samples(count)).model)
