"""INT8 and INT4 weights of Linears: which layers, which blocks, how exact."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeformer.graph.protos import attribute
from edgeformer.graph.types import to_float_type
from edgeformer.quantization import Override
from edgeformer.quantization.weight_only import block_for, quantize_weights
from tests.graph.precision_graphs import Builder, check, run, snr_db, transformer
from tests.raising import raises

LINEARS = {"qkv_matmul", "wo_matmul", "fc1_matmul", "fc2_matmul"}
WeightOnly = Literal["int8-weights", "int4-weights"]


def images(count: int = 8) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize(("precision", "least"), [("int8-weights", 40), ("int4-weights", 14)])
def test_linears_alone_are_quantized(precision: WeightOnly, least: float) -> None:
    model = transformer()
    result = quantize_weights(model, precision)
    check(result.model)
    assert {item.output for item in result.decisions if item.quantized} == LINEARS
    convolutions = [item for item in result.decisions if item.op_type == "Conv"]
    assert len(convolutions) >= 2
    assert not any(item.quantized for item in convolutions)
    assert any("kernels of their own" in item.because for item in convolutions)
    kinds = [node.op_type for node in result.model.graph.node]
    assert kinds.count("DequantizeLinear") == 4
    assert "QuantizeLinear" not in kinds
    reference, found = run(model, images())[0], run(result.model, images())[0]
    assert snr_db(reference, found) > least
    typed = to_float_type(result.model, "float16")
    check(typed)
    assert snr_db(found, run(typed, images())[0]) > 40


def test_int8_weights_lose_less_than_int4() -> None:
    model = transformer()
    reference = run(model, images())[0]
    found = [
        snr_db(reference, run(quantize_weights(model, one).model, images())[0])
        for one in ("int8-weights", "int4-weights")
    ]
    assert found[0] > found[1] + 10


def test_an_override_leaves_a_layer_out() -> None:
    result = quantize_weights(
        transformer(), "int8-weights", overrides=[Override(name="*fc1*", quantize=False, because="try")]
    )
    assert {item.output for item in result.decisions if item.quantized} == LINEARS - {"fc1_matmul"}


def test_an_override_that_matches_nothing_is_refused() -> None:
    with raises("EF504", "nowhere"):
        quantize_weights(
            transformer(), "int8-weights", overrides=[Override(name="nowhere", quantize=False, because="x")]
        )


@pytest.mark.parametrize(
    ("inputs", "largest", "block"),
    [
        (96, 64, 48),
        (96, 32, 32),
        (128, 128, 128),
        (20, 32, 20),
        (50, 32, 25),
        (131, 64, None),
        (7, 32, None),
        (26, 8, None),
    ],
)
def test_a_block_divides_the_inputs(inputs: int, largest: int, block: int | None) -> None:
    assert block_for(inputs, largest) == block


def linears(*sizes: tuple[int, int]) -> onnx.ModelProto:
    b = Builder(("batch", 4, sizes[0][0]))
    x = "input"
    for number, (width, out) in enumerate(sizes):
        x = b.op("MatMul", x, b.normal(width, out, scale=width**-0.5, name=f"weight{number}"), output=f"layer{number}")
        x = b.op("Relu", x, output=f"relu{number}")
    b.op("Mul", x, b.const(np.float32(2)), output="y")
    return b.model("y")


def test_layers_that_int4_cannot_store_stay_in_float_and_say_why() -> None:
    """33 x 7 has an odd number of values; 7 inputs are fewer than a block, and 262 are 2 x 131."""
    model = linears((96, 33), (33, 7), (7, 262), (262, 14), (14, 8))
    result = quantize_weights(model, "int4-weights", int4_block=64)
    found = {item.output: item for item in result.decisions}
    assert {name for name, item in found.items() if item.quantized} == {"layer0", "layer4"}
    assert "33 x 7 values" in found["layer1"].because
    assert "7 input channels" in found["layer2"].because
    assert "262 input channels" in found["layer3"].because
    blocks = [attribute(node, "block_size") for node in result.model.graph.node if node.op_type == "DequantizeLinear"]
    assert blocks == [48, 14]


def test_int4_block_is_one_of_three() -> None:
    with raises("EF101", "int4_block 16", "32, 64, 128"):
        quantize_weights(transformer(), "int4-weights", int4_block=16)


def test_progress_is_told_layer_by_layer() -> None:
    seen = []
    quantize_weights(transformer(), "int8-weights", progress=lambda text, done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_to_quantize_is_an_error_with_the_reason() -> None:
    b = Builder(("batch", 3, 8, 8))
    b.op("Relu", b.conv("input", 3, 8, 3, "conv"), output="y")
    with raises("EF547", "int8-weights", "convolution"):
        quantize_weights(b.model("y"), "int8-weights")


@pytest.mark.parametrize(("value", "code"), [(np.nan, "EF343"), (np.inf, "EF343"), (1e5, "EF546")])
def test_a_weight_that_cannot_be_stored_is_named(value: float, code: str) -> None:
    model = transformer()
    (tensor,) = (one for one in model.graph.initializer if one.name == "fc1.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with raises(code, "fc1.weight"):
        quantize_weights(model, "int8-weights")


def test_a_graph_that_is_quantized_or_16_bit_is_refused() -> None:
    once = quantize_weights(transformer(), "int8-weights").model
    with raises("EF324", "Q/DQ"):
        quantize_weights(once, "int4-weights")
    with raises("EF324", "FP16"):
        quantize_weights(to_float_type(transformer(), "float16"), "int8-weights")
