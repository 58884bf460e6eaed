"""Models too large for one protobuf message; the limit is made small, so that small ones stand for them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.runtime import OnnxSession, onnx_source
from tests.raising import raises
from tests.runtime.conftest import make_model

X = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)


def linear() -> onnx.ModelProto:
    """h = x @ weight, y = h + bias; the weight takes 16 KiB in FP32 and the bias 256 bytes."""
    return make_model(
        [helper.make_node("MatMul", ["x", "weight"], ["h"]), helper.make_node("Add", ["h", "bias"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 64])],
        [("y", TensorProto.FLOAT, ["batch", 64])],
        {"weight": WEIGHT, "bias": np.arange(64, dtype=np.float32)},
    )


@pytest.mark.parametrize("optimization", ["none", "basic", "all"])
def test_a_model_beyond_the_limit_runs_with_its_weights_beside_it(
    monkeypatch: pytest.MonkeyPatch, optimization: Any
) -> None:
    monkeypatch.setattr(onnx_source, "_LARGEST_MESSAGE", 4096)
    model = linear()
    before = model.SerializeToString()
    source = onnx_source.onnx_source(model, None)
    assert list(source.weights) == ["weight"]
    assert len(source.model) < 1024
    with OnnxSession(model, outputs=["y", "h"], optimization=optimization) as session:
        del source
        found = session.run({"x": X})
    np.testing.assert_allclose(found["h"], X @ WEIGHT, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["y"], X @ WEIGHT + np.arange(64), rtol=1e-4, atol=1e-4)
    assert model.SerializeToString() == before


def test_its_weights_live_as_long_as_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_source, "_LARGEST_MESSAGE", 4096)
    model = linear()
    tracemalloc.start()
    try:
        session = OnnxSession(model, optimization="none")
        held = tracemalloc.get_traced_memory()[0]
        session.close()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held - left > WEIGHT.nbytes / 2


def test_a_model_that_protobuf_cannot_write_is_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how protobuf reports a message beyond 2 GiB."""
    from google.protobuf.message import EncodeError

    class Model:
        def SerializeToString(self) -> NoReturn:  # noqa: N802 - protobuf's name
            raise EncodeError("Failed to serialize proto")

    assert onnx_source._serialized(Model()) is None  # type: ignore[arg-type]


def test_a_small_model_is_one_message() -> None:
    source = onnx_source.onnx_source(linear(), ["h"])
    assert source.weights == {}
    assert isinstance(source.model, bytes)
    assert [value.name for value in onnx.load_model_from_string(source.model).graph.output] == ["y", "h"]


def test_a_file_is_handed_over_by_its_path(tmp_path: Path) -> None:
    onnx.save_model(linear(), tmp_path / "m.onnx")
    assert onnx_source.onnx_source(tmp_path / "m.onnx", ["y"]).model == str(tmp_path / "m.onnx")
    inside = onnx_source.onnx_source(tmp_path / "m.onnx", ["h"])
    assert isinstance(inside.model, bytes)
    assert inside.folder == tmp_path


def test_constants_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_source, "_LARGEST_MESSAGE", 4096)
    model = linear()
    weight = model.graph.initializer.pop(0)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["weight"], value=weight))
    with raises("EF809", "'small'", "2 GiB", "initializers"):
        OnnxSession(model)


def test_bfloat16_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT.astype(ml_dtypes.bfloat16), "weight"))
    monkeypatch.setattr(onnx_source, "_LARGEST_MESSAGE", 4096)
    with raises("EF808", "'small'", "2 GiB", "FP16 or FP32"):
        OnnxSession(model)
