from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edgeformer.graph.qdq import QMAX, representable_scale
from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.steps import Quantizer, Steps
from tests.runtime.conftest import make_model


def quantized(scale: np.ndarray, op_type: str = "Add", constant: float = -0.25) -> ModelProto:
    """Relu, a constant that is added or multiplied with, a cast to FP16, and a Q/DQ pair."""
    half = TensorProto.FLOAT16
    pair = ["scale", "zero"]
    nodes = [
        helper.make_node("Relu", ["x"], ["act"]),
        helper.make_node(op_type, ["act", "offset"], ["act_centred"]),
        helper.make_node("Cast", ["act_centred"], ["act_centred_float16"], to=half),
        helper.make_node("QuantizeLinear", ["act_centred_float16", *pair], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", *pair], ["y"], axis=1),
    ]
    weights = {
        "offset": np.float32(constant),
        "scale": scale.astype(np.float16),
        "zero": np.zeros(scale.shape, np.int8),
    }
    return make_model(nodes, [("x", TensorProto.FLOAT, ["n", 2])], [("y", half, ["n", 2])], weights)


def only(scale: np.ndarray, ranges: dict[str, float]) -> Quantizer:
    graph = FormGraph(quantized(scale))
    (found,) = Steps(graph, ranges).among(range(len(graph.flow.nodes)))
    return found


def step(amax: float) -> np.ndarray:
    return np.asarray(representable_scale(amax / QMAX))


def test_what_it_reads_and_how_far_that_is_shifted() -> None:
    found = only(step(2.0), {"act_centred": 2.0})
    assert list(found.moves) == ["act_centred_float16", "act_centred", "act"]
    assert [tuple(map(float, move)) for move in found.moves.values()] == [(0.0, 1.0), (0.0, 1.0), (-0.25, 1.0)]
    assert found.source({"act", "other"}) == "act"
    assert found.source({"other"}) is None


def test_what_it_is_multiplied_with_is_told_as_what_it_is_divided_by() -> None:
    graph = FormGraph(quantized(step(2.0), "Mul", 4.0))
    (found,) = Steps(graph, {}).among(range(len(graph.flow.nodes)))
    assert [tuple(map(float, move)) for move in found.moves.values()] == [(0.0, 1.0), (0.0, 1.0), (0.0, 0.25)]


def test_nothing_is_told_behind_a_zero() -> None:
    graph = FormGraph(quantized(step(2.0), "Mul", 0.0))
    (found,) = Steps(graph, {}).among(range(len(graph.flow.nodes)))
    assert list(found.moves) == ["act_centred_float16", "act_centred"]


@pytest.mark.parametrize("factor", [1, 2])
def test_steps_have_to_be_those_of_calibration(factor: int) -> None:
    found = only(factor * step(2.0), {"act_centred": 2.0})
    np.testing.assert_array_equal(found.recorded, step(2.0))
    assert found.as_recorded == (factor == 1)


def test_calibration_that_does_not_know_the_tensor_says_nothing() -> None:
    found = only(step(2.0), {"other": 1.0})
    assert found.recorded is None
    assert found.as_recorded


@pytest.mark.parametrize("second", [3.0, 3.5])
def test_parts_have_steps_of_their_own(second: float) -> None:
    scale = np.array([step(1.0), step(3.0)])
    found = only(scale, {"act_centred[..., 0:1]": 1.0, "act_centred[..., 1:2]": second})
    assert found.as_recorded == (second == 3.0)
