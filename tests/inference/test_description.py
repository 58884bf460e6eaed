"""What a model says of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeformer.inference import load
from tests.inference.conftest import classifier, make_bundle, saved
from tests.runtime.conftest import make_model


def test_inputs_and_outputs_in_the_models_order(tmp_path: Path) -> None:
    model = make_model(
        [helper.make_node("Cast", ["z"], ["y"], to=TensorProto.INT64), helper.make_node("Identity", ["a"], ["b"])],
        [("z", TensorProto.BOOL, [2, "width"]), ("a", TensorProto.FLOAT16, [])],
        [("y", TensorProto.INT64, [2, "width"]), ("b", TensorProto.FLOAT16, [])],
    )
    with load(saved(model, tmp_path / "model.onnx")) as loaded:
        found = loaded.describe()
    assert [one.name for one in (*found.inputs, *found.outputs)] == ["z", "a", "y", "b"]
    first, second = found.inputs
    assert (first.dtype, first.shape, first.minimum) == (np.dtype(np.bool_), (2, None), (2, 1))
    assert (first.optimum, first.maximum) == ((2, 1), (2, None))
    assert (second.dtype, second.shape, second.maximum) == (np.dtype(np.float16), (), ())
    assert found.backend_version == onnxruntime.__version__


def test_labels_of_any_language(tmp_path: Path) -> None:
    labels = ("Straße", "猫", "a, b", "\N{OWL}")
    with load(make_bundle(tmp_path / "b", classifier(), labels=labels)) as model:
        assert model.describe().labels == labels


def test_it_cannot_be_changed(tmp_path: Path) -> None:
    with load(make_bundle(tmp_path / "b", classifier(), labels=None)) as model:
        found = model.describe()
    assert found.labels == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"  # type: ignore[misc]


def test_it_reads_as_a_summary(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", classifier())
    with load(bundle) as model:
        first, file, why, taken, given = str(model.describe()).splitlines()
    assert first == "biformer_nano: classification, int8, 4 classes"
    assert file == f"{bundle / 'typed.onnx'} in ONNX Runtime {onnxruntime.__version__} on the CPU, 1 at once"
    assert why.startswith("not in TensorRT: EF707: ")
    assert taken == "input input: float32 [?, 3, 8, 8], from [1, 3, 8, 8] to [?, 3, 8, 8]"
    assert given == "output logits: float32 [?, 4], from [1, 4] to [?, 4]"
    with load(saved(classifier(batch=2), tmp_path / "m.onnx"), contexts=3) as model:
        first, file, taken, given = str(model.describe()).splitlines()
    assert first == "m.onnx"
    assert file.endswith("on the CPU, 3 at once")
    assert taken == "input input: float32 [2, 3, 8, 8]"
