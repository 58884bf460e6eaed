"""Multiply-adds of tiny graphs, counted by hand, in the types that their operands were rounded to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from benchmarks.quantization.multiply_adds import multiply_adds

from .graphs import FEATURES, SCALE, linear, model_of, pair, routed, weights

TOKENS = 4
IMAGE = np.zeros((1, TOKENS, FEATURES), np.float32)


def counted(nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> dict[tuple[str, str], int]:
    return dict(multiply_adds(model_of(nodes, constants), IMAGE).by_types)


def test_products_of_a_float_graph() -> None:
    found = multiply_adds(routed(), IMAGE)
    # queries, affinities, classes
    assert found.total == TOKENS * FEATURES * FEATURES + TOKENS * TOKENS * FEATURES + TOKENS * FEATURES * 5
    assert found.share("float", "float") == 1.0


def test_both_operands_in_eight_bits() -> None:
    nodes = [
        *pair("input", "x"),
        helper.make_node("DequantizeLinear", ["w8", "scale", "zero"], ["w"]),
        linear("first", "x", "w"),
        helper.make_node("DequantizeLinear", ["w8", "scale", "zero"], ["w_again"]),
        linear("second", "first", "w_again"),
        linear("logits", "second", "wide"),
    ]
    constants = {**SCALE, "w8": np.ones((FEATURES, FEATURES), np.int8), "wide": weights(FEATURES, 2 * FEATURES)}
    one = TOKENS * FEATURES * FEATURES
    found = multiply_adds(model_of(nodes, constants), IMAGE)
    assert found.by_types == {("int8", "int8"): one, ("float", "int8"): one, ("float", "float"): 2 * one}
    assert found.share("int8", "int8") == 0.25


def test_rounding_is_seen_through_what_moves_values() -> None:
    nodes = [
        *pair("input", "x"),
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["turned", "factor"], ["scaled"]),
        *pair("wide", "w"),
        helper.make_node("MatMul", ["scaled", "w"], ["logits"]),
    ]
    constants = {**SCALE, "factor": np.array(3, np.float32), "wide": weights(TOKENS, 7)}
    assert counted(nodes, constants) == {("int8", "int8"): FEATURES * TOKENS * 7}


def test_what_computes_in_between_makes_it_float() -> None:
    nodes = [*pair("input", "x"), helper.make_node("Exp", ["x"], ["e"]), linear("logits", "e", "w")]
    assert counted(nodes, {**SCALE, "w": weights(FEATURES, 3)}) == {("float", "float"): TOKENS * FEATURES * 3}
    # A product of two activations is no constant factor.
    nodes = [*pair("input", "x"), helper.make_node("Mul", ["x", "input"], ["m"]), linear("logits", "m", "w")]
    assert counted(nodes, {**SCALE, "w": weights(FEATURES, 3)}) == {("float", "float"): TOKENS * FEATURES * 3}


def test_types_are_told_apart() -> None:
    def through(zero: NDArray[Any] | None) -> tuple[str, str]:
        constants = {"scale": SCALE["scale"], "w": weights(FEATURES, 3)}
        if zero is not None:
            constants["zero"] = zero
        nodes = [*pair("input", "x", point="" if zero is None else "zero"), linear("logits", "x", "w")]
        (types,) = counted(nodes, constants)
        return types

    assert through(np.array(0, np.int8)) == ("int8", "float")
    assert through(np.array(0, np.uint8)) == ("int8", "float")
    assert through(None) == ("int8", "float")
    assert through(np.array(0, np.int16)) == ("int16", "float")


def test_convolutions_and_their_groups() -> None:
    nodes = [
        helper.make_node("Conv", ["input", "dense"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "depthwise"], ["logits"], kernel_shape=[3, 3], group=6),
    ]
    constants = {"dense": weights(6, 2, 3, 3), "depthwise": weights(6, 1, 3, 3)}
    model = model_of(nodes, constants, shape=("batch", 2, 8, 8))
    found = multiply_adds(model, np.zeros((1, 2, 8, 8), np.float32))
    assert found.total == 6 * 8 * 8 * 2 * 9 + 6 * 6 * 6 * 9


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_counts_for_one_image(batch: int) -> None:
    model = model_of([linear("logits", "input", "w")], {"w": weights(FEATURES, 3)}, shape=(batch, TOKENS, FEATURES))
    assert multiply_adds(model, IMAGE).total == TOKENS * FEATURES * 3


def test_gemm_reads_its_own_transposition() -> None:
    nodes = [
        helper.make_node("Reshape", ["input", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w"], ["logits"], transA=1),
    ]
    constants: dict[str, NDArray[Any]] = {"flat": np.array([TOKENS, FEATURES], np.int64), "w": weights(TOKENS, 3)}
    assert counted(nodes, constants) == {("float", "float"): FEATURES * 3 * TOKENS}
