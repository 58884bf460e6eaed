"""`ef.quantize`: the precision decides which way a model goes, and what has no use there is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgeformer as ef
from edgeformer.quantization import Override, QuantizeResult, Recipe, TypedResult
from edgeformer.quantization.policy import Decision
from edgeformer.quantization.typed_result import layer_record
from tests.graph.precision_graphs import transformer
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

MakeSamples = Callable[..., ArraySamples]


def test_int8_is_the_default(make_samples: MakeSamples) -> None:
    result = ef.quantize(transformer(), make_samples(8), recipe=Recipe(name="plain"))
    assert isinstance(result, QuantizeResult)


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_weights_alone_need_no_images_and_look_at_none(make_samples: MakeSamples, precision: Any) -> None:
    samples = make_samples(4)
    assert isinstance(ef.quantize(transformer(), precision=precision), TypedResult)
    assert ef.quantize(transformer(), samples, precision=precision).calibration is None
    assert samples.passes == 0


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights", "fp8"])
def test_the_recipes_overrides_apply(make_samples: MakeSamples, precision: Any) -> None:
    recipe = Recipe(name="mine", overrides=(Override(name="*wo*", quantize=False, because="mine"),))
    result = ef.quantize(transformer(), make_samples(4), precision=precision, recipe=recipe)
    assert result.precision == precision
    assert {item.output for item in result.decisions if item.quantized} == {"qkv_matmul", "fc1_matmul", "fc2_matmul"}


def test_what_has_no_use_is_refused(make_samples: MakeSamples, tmp_path: Path) -> None:
    wrong: Any = "fp4"
    with raises("EF101", "'fp4'", "int8, int8-weights, fp8, int4-weights"):
        ef.quantize(transformer(), precision=wrong)
    with raises("EF104", "attention", "fp8"):
        ef.quantize(
            transformer(), make_samples(4), precision="fp8", recipe=Recipe(name="mine", quantize_attention=True)
        )
    with raises("EF104", "calibration", "int8-weights"):
        ef.quantize(transformer(), precision="int8-weights", calibration_cache=tmp_path / "calibration.json")
    with raises("EF103", "FP8"):
        ef.quantize(transformer(), precision="fp8")


def test_a_record_says_what_a_layer_became() -> None:
    layer = Decision("fc1", "MatMul", "fc1_matmul", True, "a Linear")
    assert layer_record(layer, "int8").int8
    assert layer_record(layer, "int8").type is None
    assert not layer_record(layer, "fp8").int8
    assert layer_record(layer, "fp8").type == "fp8"
    left = Decision("conv", "Conv", "conv", False, "a convolution")
    assert layer_record(left, "int4-weights").type is None
