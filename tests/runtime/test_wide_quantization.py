"""FP16 values are quantized to the nearest integer, ties to even, whatever ONNX Runtime it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeformer.runtime import OnnxSession
from edgeformer.runtime.wide_quantization import ROUNDS_SINCE, cuts_off, quantizes, with_wide_quantization
from tests.runtime.conftest import make_model

X = np.array([0.4, 0.5, 0.6, 1.5, 2.5, -0.6, -1.5, 126.7, 300.0], np.float16)
ROUNDED = np.array([0, 0, 1, 2, 2, -1, -2, 127, 127], np.int8)
BEFORE = f"{ROUNDS_SINCE[0]}.{ROUNDS_SINCE[1] - 1}.9"


def quantizing() -> onnx.ModelProto:
    """y = x in INT8, with a scale of 1; z = the same from a function's body."""
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    model = make_model(
        [node],
        [("x", TensorProto.FLOAT16, ["n"])],
        [("y", TensorProto.INT8, ["n"])],
        {"scale": np.array(1.0, np.float16), "zero": np.array(0, np.int8)},
    )
    model.graph.node.append(helper.make_node("Rounded", ["x", "scale", "zero"], ["z"], domain="local"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.INT8, ["n"]))
    model.opset_import.append(helper.make_opsetid("local", 1))
    (opset,) = (entry for entry in model.opset_import if not entry.domain)
    model.functions.append(helper.make_function("local", "Rounded", ["x", "scale", "zero"], ["y"], [node], [opset]))
    return model


def run(model: onnx.ModelProto | Path | bytes) -> list[np.ndarray]:
    with OnnxSession(model, optimization="none") as session:
        return list(session.run({"x": X}).values())


def test_values_are_rounded(tmp_path: Path) -> None:
    onnx.save(quantizing(), tmp_path / "model.onnx")
    for model in (quantizing(), quantizing().SerializeToString(), tmp_path / "model.onnx"):
        for found in run(model):
            np.testing.assert_array_equal(found, ROUNDED)


def test_an_onnx_runtime_that_cuts_off_gets_another_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[onnx.ModelProto] = []

    def noted(model: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(with_wide_quantization(model))
        return seen[-1]

    monkeypatch.setattr(onnxruntime, "__version__", BEFORE)
    monkeypatch.setattr("edgeformer.runtime.onnx_source.with_wide_quantization", noted)
    onnx.save(quantizing(), tmp_path / "model.onnx")
    for model in (quantizing(), quantizing().SerializeToString(), tmp_path / "model.onnx"):
        for found in run(model):
            np.testing.assert_array_equal(found, ROUNDED)
    assert [node.op_type for node in seen[0].graph.node] == ["Cast", "Cast", "QuantizeLinear", "Rounded"]
    assert [node.op_type for node in seen[0].functions[0].node] == ["Cast", "Cast", "QuantizeLinear"]
    assert len(seen) == 3


def test_only_where_it_is_needed() -> None:
    assert cuts_off(BEFORE)
    assert not cuts_off("{}.{}.0".format(*ROUNDS_SINCE))
    assert not cuts_off("2.0.0")
    model = quantizing()
    assert quantizes(model)
    del model.graph.node[0]
    assert quantizes(model)  # the function's
    del model.functions[:]
    assert not quantizes(model)
