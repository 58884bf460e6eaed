"""A fake-quantized model goes through a build as any other: fused in float, INT8 as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from edgeformer.bundle.details import QuantizeDetails
from edgeformer.export import export_onnx
from edgeformer.graph.fuse import fuse
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.graph.trained_qdq import without_qdq
from edgeformer.models import create_model
from edgeformer.pipeline import build
from edgeformer.quantization import fake_quantize
from tests.pipeline.conftest import engine_report, weight_scale_sizes
from tests.present import present
from tests.quantization.conftest import ArraySamples
from tests.quantization.fake_quantized import SIZE, images, network
from tests.raising import raises


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of a small fake-quantized network."""
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    model = fake_quantize(network(), samples=ArraySamples(images()))
    save_model(export_onnx(model, input_size=(SIZE, SIZE)), path)
    return path


def int8_constants(path: Path) -> set[bytes]:
    """The INT8 weights of a graph with more than one value."""
    arrays = [numpy_helper.to_array(one) for one in load_model(path).graph.initializer]
    return {array.tobytes() for array in arrays if array.dtype == np.int8 and array.ndim > 1}


def options(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"output": tmp_path / "bundle", "precision": "int8", "data": images(8), "preprocessing": "none", **more}


def test_its_weights_and_scales_are_the_files(student: Path, tmp_path: Path) -> None:
    result = build(student, target="jetson-agx-orin", max_drop=100, **options(tmp_path))
    assert int8_constants(result.path / "typed.onnx") == int8_constants(student)
    assert weight_scale_sizes(result.path) == {"each"}
    _, given = without_qdq(load_model(student))
    _, built = without_qdq(load_model(result.path / "typed.onnx"))
    # Types change no scale.
    assert {name: float(np.float16(amax / 127)) for name, amax in given.amax.items()} == {
        name: amax / 127 for name, amax in built.amax.items()
    }
    details = present(result.manifest.details(QuantizeDetails))
    assert [layer.because for layer in details.layers if layer.int8] == ["it was trained with INT8 rounding"] * 6
    assert not any(layer.int8 for layer in details.layers if layer.op == "Gemm")
    assert len(details.activations) == 5
    assert "calibration.json" not in result.manifest.files
    assert not any("Quantize" in node.op_type for node in load_model(result.path / "exported.onnx").graph.node)


def test_an_engine_is_built_of_it(student: Path, tmp_path: Path) -> None:
    result = build(student, target="rtx-40", max_drop=100, compare_plugin=False, **options(tmp_path))
    assert int8_constants(result.path / "typed.onnx") == int8_constants(student)
    assert engine_report(result).engine_layers


@pytest.mark.slow
def test_routing_attention_is_fused_in_it(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    pictures = np.random.default_rng(0).standard_normal((4, 3, 112, 112), dtype=np.float32)
    model = fake_quantize(create_model("biformer_nano"), samples=ArraySamples(pictures))
    save_model(export_onnx(model, input_size=(112, 112)), tmp_path / "nano.onnx")
    fused = fuse(load_model(tmp_path / "nano.onnx"))
    assert len(fused.fused) == fused.op_nodes == 4
    save_model(fused.model, tmp_path / "fused.onnx")
    assert int8_constants(tmp_path / "fused.onnx") == int8_constants(tmp_path / "nano.onnx")
    result = build(
        tmp_path / "fused.onnx",
        target="rtx-40",
        require_plugin=True,
        compare_plugin=False,
        max_drop=100,
        **options(tmp_path, data=pictures),
    )
    assert engine_report(result).op_nodes == 4
    assert int8_constants(result.path / "typed.onnx") == int8_constants(tmp_path / "nano.onnx")


@pytest.mark.parametrize("precision", ["fp16", "fp32", "bf16"])
def test_it_becomes_nothing_but_int8(student: Path, tmp_path: Path, precision: str) -> None:
    with raises("EF324", precision.upper(), "--precision int8"):
        build(student, target="rtx-40", **options(tmp_path, precision=precision))


def test_what_is_trained_leaves_a_recipe_nothing_to_decide(student: Path, tmp_path: Path) -> None:
    with raises("EF104", "--recipe"):
        build(student, target="rtx-40", **options(tmp_path, recipe="default"))
    with raises("EF104", "--quantize-attention"):
        build(student, target="rtx-40", **options(tmp_path, quantize_attention=True))
