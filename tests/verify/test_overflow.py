"""The tensor at which a 16-bit form leaves the range of its type is named."""

from __future__ import annotations

import numpy as np
import onnx

from edgeformer.graph.types import to_float_type
from edgeformer.verify.overflow import overflow
from tests.graph.precision_graphs import Builder


def model(scale: float) -> onnx.ModelProto:
    build = Builder((1, 3, 4, 4))
    big = build.op("Mul", "input", build.const(np.float32(scale)), output="big")
    square = build.op("Mul", big, big, output="square")
    return build.model(build.op("Mul", square, build.const(np.float32(1e-3)), output="small"))


IMAGES = np.full((1, 3, 4, 4), 2.0, np.float32)


def test_the_first_tensor_that_overflows_is_named_with_its_magnitude() -> None:
    float32 = model(500.0)
    assert overflow(float32, to_float_type(float32, "float16"), IMAGES) == (
        "tensor 'square' of Mul 'node_square' reaches 1e+06, and FP16 ends at 65504"
    )


def test_bfloat16_holds_it_and_small_values_fit() -> None:
    assert overflow(model(500.0), to_float_type(model(500.0), "bfloat16"), IMAGES) is None
    assert overflow(model(1.0), to_float_type(model(1.0), "float16"), IMAGES) is None


def test_masks_of_infinity_do_not_overflow() -> None:
    build = Builder((1, 3, 4, 4))
    masked = build.op("Add", "input", build.const(np.float32(-np.inf)), output="masked")
    float32 = build.model(build.op("Relu", masked, output="y"))
    assert overflow(float32, to_float_type(float32, "float16"), IMAGES) is None


def test_what_is_finite_among_infinities_and_in_empty_tensors_is_looked_at() -> None:
    build = Builder((1, 3, 4, 4))
    scaled = build.op("Mul", "input", build.const(np.float32(1)), output="scaled")
    masked = build.op("Concat", scaled, build.const(np.full((1, 3, 4, 4), -np.inf, np.float32)), output="m", axis=0)
    empty = build.op("Slice", masked, *(build.const(np.array([end])) for end in (0, 0)), output="empty")
    summed = build.op("Add", empty, build.const(np.float32(1)), output="summed")
    float32 = build.model(build.op("Concat", masked, summed, output="y", axis=0))
    typed = to_float_type(float32, "float16")
    assert overflow(float32, typed, IMAGES) is None
    assert "reaches 131072, and" in str(overflow(float32, typed, IMAGES * np.float32(2**16)))
