"""What a build refuses, and what it fills in, before any stage runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.data import Preprocessing
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.graph.types import to_float_type
from edgeformer.pipeline import build
from tests.pipeline.conftest import (
    Recorder,
    linears_as_convolutions,
)
from tests.raising import raises


def test_limits_are_checked_before_anything_is_done(nano_onnx: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    for limits, named in (({"max_aux_streams": -1}, "-1 auxiliary streams"), ({"workspace_bytes": 0}, "limit 0")):
        with raises("EF101", named):
            build(nano_onnx, output=tmp_path / "bundle", target="rtx-30", observer=recorder, **limits)  # type: ignore[arg-type]
    assert recorder.ran == []


def test_a_graph_of_fixed_batch(nano_onnx: Path, tmp_path: Path) -> None:
    model = load_model(nano_onnx)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = tmp_path / "fixed.onnx"
    save_model(model, fixed)
    with raises("EF325", "the batch at 2", "1:2:4"):
        build(fixed, output=tmp_path / "bundle", target="rtx-40", batch="1:2:4")
    result = build(fixed, output=tmp_path / "bundle", target="rtx-40")
    assert result.manifest.batch == [2, 2, 2]
    assert not linears_as_convolutions(result)


@pytest.mark.parametrize(
    ("kind", "precision", "named"),
    [
        ("float16", "fp32", ["FP16", "FP32"]),
        ("float16", "bf16", ["FP16", "BF16"]),
        ("bfloat16", "fp16", ["BF16", "FP16"]),
    ],
)
def test_a_typed_graph_is_not_relabelled(
    nano_onnx: Path, tmp_path: Path, kind: Any, precision: Any, named: list[str]
) -> None:
    save_model(to_float_type(load_model(nano_onnx), kind), tmp_path / "half.onnx")
    with raises("EF324", *named):
        build(tmp_path / "half.onnx", output=tmp_path / "bundle", target="rtx-40", precision=precision)


def test_a_quantized_graph_is_refused(tmp_path: Path) -> None:
    node = onnx.helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["output"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "quantized",
        [value("input", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [value("output", onnx.TensorProto.INT8, ["n", 3, 8, 8])],
        [
            onnx.numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
            onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "q.onnx")
    with raises("EF324", "q.onnx", "1 Q/DQ"):
        build(tmp_path / "q.onnx", output=tmp_path / "bundle", target="rtx-40")


def test_an_rtx_target_without_tensorrt_rtx_is_the_machines_fault(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("engine.targets", "machine.backends"):
        monkeypatch.setattr(f"edgeformer.{room}.find_backend", lambda _flavour: None)
    with raises("EF605", "pip install 'edgeformer[rtx]'"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40")
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_and_input_size_have_to_agree(nano_onnx: Path, tmp_path: Path) -> None:
    prepared = Preprocessing(128, 128)
    with raises("EF323", "height", 112, 128):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", preprocessing=prepared)
    with raises("EF323", "128x128", "--input-size", "112x112"):
        build(
            "biformer_nano",
            output=tmp_path / "bundle",
            target="rtx-40",
            random_weights=True,
            preprocessing=prepared,
            input_size=(112, 112),
        )


def test_a_negative_drop_is_refused(nano_onnx: Path, tmp_path: Path) -> None:
    with raises("EF101", "max_drop -5"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", max_drop=-5)


def test_eval_data_needs_labels(nano_onnx: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 112, 112), np.float32))
    with raises("EF106", "--eval-data"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", eval_data=tmp_path / "images.npy")


def test_a_recipe_without_int8(nano_onnx: Path, tmp_path: Path) -> None:
    with raises("EF104", "recipe", "fp16"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", recipe="default")


def test_int8_attention_is_for_int8(nano_onnx: Path, tmp_path: Path) -> None:
    with raises("EF104", "--quantize-attention", "bf16", "--precision int8"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", precision="bf16", quantize_attention=True)
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin", quantize_attention=False)
    assert result.manifest.precision == "fp16"
