"""Masks of attention beyond 16 bits: FP32 down to the softmax that they are for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeformer.graph.types import FloatType, to_float_type
from tests.graph.precision_graphs import Builder, check, maker, run, types
from tests.graph.test_types import image, op_types
from tests.raising import raises


def masked_attention(way: str, value: float) -> onnx.ModelProto:
    """Logits of 16 x 16 tokens with a mask of ``value``: stored, filled in, or computed of a comparison."""
    b = Builder((2, 3, 16, 16))
    logits = b.op("Mul", "input", b.const(np.float32(0.5), "scale"))
    hidden = np.zeros((16, 16), np.float32)
    hidden[:, 12:] = value
    hidden[5] = value  # a row that attends to nothing: uniform in FP32, NaN with -inf
    if way == "stored":
        mask = b.op("Unsqueeze", b.const(hidden, "mask"), b.const(np.array([0]), "axes"))
        masked = b.op("Add", logits, mask)
    elif way == "filled":
        masked = b.op("Where", b.const(hidden == 0, "seen"), logits, b.const(np.float32(value), "mask"))
    else:
        flags = b.op("Cast", b.op("Less", logits, b.const(np.float32(0.25), "limit")), to=TensorProto.FLOAT)
        masked = b.op("Add", logits, b.op("Mul", flags, b.const(np.float32(value), "mask")))
    b.op("Softmax", masked, output="weights", axis=-1)
    b.op("MatMul", "weights", logits, output="y")
    return b.model("y")


@pytest.mark.parametrize("way", ["stored", "filled", "computed"])
@pytest.mark.parametrize(("float_type", "value"), [("float16", -1e9), ("bfloat16", -3.4e38)])
def test_masks_beyond_16_bits_stay_as_they_are(way: str, float_type: FloatType, value: float) -> None:
    model = masked_attention(way, value)
    typed = to_float_type(model, float_type)
    check(typed)
    kinds = types(typed)
    (softmax,) = (node for node in typed.graph.node if node.op_type == "Softmax")
    assert {kinds[name] for name in maker(typed, softmax.input[0]).input} <= {"FLOAT", "BOOL"}
    (product,) = (node for node in typed.graph.node if node.op_type == "MatMul")
    assert {kinds[name] for name in product.input} == {float_type.upper()}
    if float_type == "float16":
        expected, got = (run(one, image(model))[0] for one in (model, typed))
        assert np.abs(expected - got).max() < 1e-2


def test_constants_beyond_16_bits_that_are_no_masks_are_refused() -> None:
    b = Builder((2, 3, 16, 16))
    b.op("Add", "input", b.const(np.full(16, -1e9), "offset"), output="y")
    with raises("EF307", "'offset' reaches 1e+09"):
        to_float_type(b.model("y"), "float16")


def test_a_long_chain_in_front_of_a_softmax() -> None:
    b = Builder((1, 3, 4, 4))
    name = "input"
    for _ in range(3000):
        name = b.op("Identity", name)
    b.op("Softmax", name, output="y", axis=-1)
    assert op_types(to_float_type(b.model("y"), "float16")).count("Softmax") == 1
