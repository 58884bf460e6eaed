"""`--input uint8`: the network takes pixels, and every stage works with it as with the network that takes floats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.bundle.application import PlainImage
from edgeformer.bundle.details import QuantizeDetails
from edgeformer.bundle.files import EXPORTED, FUSED, PARITY, TYPED
from edgeformer.data import Preprocessing
from edgeformer.graph.onnx_files import save_model
from edgeformer.pipeline import BuildResult, build, verify_bundle
from edgeformer.pipeline.model_source import OnnxFile, model_source
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.normalizing_session import NormalizingSession
from tests.pipeline.conftest import Recorder, engine_report
from tests.pipeline.test_model_source import TARGET, network
from tests.present import present
from tests.raising import raises

PIXELS = np.random.default_rng(5).integers(0, 256, (5, 17, 23, 3), dtype=np.uint8)
PREPARED = Preprocessing(17, 23)
# What is chosen by the outputs is chosen on other degraded images where pixels are degraded.
NOTHING = dict.fromkeys(("balance", "choose_ranges", "round_weights", "correct_bias"), False)
INT8 = {"precision": "int8", "data": PIXELS, "recipe": NOTHING}


def built(folder: Path, input_type: Any, model: Any = None, **options: Any) -> BuildResult:
    save_model(model or network(sizes=(17, 23), batch="batch"), folder / "model.onnx")
    options = {"target": TARGET, "batch": "1:2:3", **options}
    if "recipe" in options:
        recipe = folder / "recipe.json"
        recipe.write_text(json.dumps({"name": "plain", **options["recipe"]}))
        options["recipe"] = recipe
    return build(folder / "model.onnx", output=folder / input_type, input_type=input_type, **options)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(
    "options", [{"precision": "fp32"}, {}, {"precision": "bf16"}, INT8], ids=["fp32", "fp16", "bf16", "int8"]
)
def test_every_form_is_equal_to_that_of_float_input(last: bool, options: dict[str, Any], tmp_path: Path) -> None:
    model = network(sizes=(17, 23), batch="batch", last=last)
    floats, pixels = (built(tmp_path, kind, model, **options) for kind in ("float", "uint8"))
    for name in (EXPORTED, FUSED, TYPED):
        before = NormalizingSession(OnnxSession(floats.path / name), PREPARED)
        with before, OnnxSession(pixels.path / name) as after:
            assert str(after.inputs["images"]) == "uint8 [batch, 17, 23, 3]"
            wanted, found = (session.run({"images": PIXELS})["logits"] for session in (before, after))
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    imported = present(pixels.manifest.stage("import"))
    assert (imported.verdict, present(imported.gate).startswith("max |diff|")) == ("passed", True)
    if "data" in options:
        layers = [present(result.manifest.details(QuantizeDetails)).layers for result in (floats, pixels)]
        assert layers[0] == layers[1]
        assert [layer.int8 for layer in layers[1] if layer.op == "Conv"] == [True]


def test_the_manifest_says_what_the_application_gives_and_what_the_graph_does(tmp_path: Path) -> None:
    # Images of the input's size, straight to it: the pixels that are given are those of the array.
    prepared = Preprocessing(17, 23, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", 1.0)
    result = built(tmp_path, "uint8", data=PIXELS, preprocessing=prepared)
    image = result.manifest.application.image
    assert isinstance(image, PlainImage)
    assert (image.input, image.layout, image.normalization, image.height, image.width) == (
        *("images", "NHWC", "none"),
        *(17, 23),
    )
    assert (image.resize_mode, image.crop_fraction) == ("bilinear", 1.0)
    (given,) = result.manifest.inputs
    assert (given.name, given.dtype, given.shape) == ("images", "uint8", ["batch", 17, 23, 3])
    in_graph = present(result.manifest.model.normalized_in_graph)
    assert (in_graph.mean, in_graph.std) == (prepared.mean, prepared.std)
    with np.load(result.path / PARITY) as recorded:
        np.testing.assert_array_equal(recorded["input:images"], PIXELS)
    assert verify_bundle(result.path).passed
    assert verify_bundle(result.path, data=PIXELS[:2]).samples == 2
    assert built(tmp_path, "float").manifest.model.normalized_in_graph is None


def test_the_exported_graph_is_a_model_of_its_own(tmp_path: Path) -> None:
    """Its metadata tell how the images are prepared that it takes: they are not normalized twice."""
    result = built(tmp_path, "uint8")
    source = model_source(result.path / EXPORTED, input_type="uint8")
    assert isinstance(source, OnnxFile)
    assert (source.pixels, source.pixels_in_graph) == (True, False)
    assert source.preprocessing == PREPARED.with_normalization("none")


def test_float_and_pixel_builds_do_not_take_each_others_stages(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    save_model(network(sizes=(17, 23)), model)
    ran = []
    for input_type in ("float", "uint8", "uint8"):
        recorder = Recorder()
        build(model, output=tmp_path / "out", target=TARGET, input_type=input_type, observer=recorder)
        ran.append(recorder.ran)
    assert ran[1][:2] == ["import", "fuse"]
    assert ran[2] == []


def test_images_that_are_normalized_already_are_refused(tmp_path: Path) -> None:
    with raises("EF441", "uint8", "not normalized"):
        built(tmp_path, "uint8", data=PREPARED.normalize(PIXELS))


@pytest.mark.parametrize("kind", ["uint8", "int64"])
def test_models_that_take_pixels_already(kind: str, tmp_path: Path) -> None:
    with raises("EF842", "'images'", kind.upper(), "[batch, 3, height, width]"):
        built(tmp_path, "uint8", network(kind))
    if kind == "uint8":
        result = built(tmp_path, "uint8", network(kind, last=True), batch="1")
        assert result.manifest.model.normalized_in_graph is None
        assert present(result.manifest.application.image).layout == "NHWC"


def test_an_engine_takes_bytes(tmp_path: Path) -> None:
    """TensorRT-RTX builds it (two engines, 6 s alone), and the normalization takes no layer more than the cast did."""
    options = {"target": "rtx-40", "use_plugin": False, "compare_plugin": False}
    floats, pixels = (engine_report(built(tmp_path, kind, **options)) for kind in ("float", "uint8"))
    (given,) = (tensor for tensor in pixels.tensors if tensor.io == "input")
    assert (given.name, given.dtype, given.shape) == ("images", "UINT8", (-1, 17, 23, 3))
    assert str(pixels.profile["images"]) == "1x17x23x3 .. 2x17x23x3 .. 3x17x23x3"
    assert present(pixels.engine_layers) <= present(floats.engine_layers) + 1


def test_a_named_model_is_compared_with_pytorch(tmp_path: Path) -> None:
    """A whole model of the registry, made small, for export and PyTorch's part in `verify`."""
    small = {"depths": (1, 1, 1, 1), "dims": (32, 32, 32, 32), "mlp_ratios": (1.0, 1.0, 1.0, 1.0)}
    options: dict[str, Any] = {"random_weights": True, "overrides": small, "input_type": "uint8", "precision": "fp32"}
    result = build("biformer_nano", output=tmp_path / "bundle", target=TARGET, use_plugin=False, **options)
    assert present(result.manifest.stage("export")).verdict == "passed"
    report = verify_bundle(result.path)
    assert [(form.name, form.status) for form in report.forms] == [
        ("pytorch", "reference"),
        ("exported", "passed"),
        ("fused", "passed"),
        ("typed", "passed"),
    ]


def test_another_type_is_refused(tmp_path: Path) -> None:
    with raises("EF101", "'int8'", "float, uint8"):
        built(tmp_path, "int8")


@pytest.mark.parametrize("input_type", ["float", "uint8"])
def test_every_output_of_several_is_listed(input_type: str, tmp_path: Path) -> None:
    """Maps, pooled features and a number of detections, of which no one is logits for the application."""
    model = network(sizes=(17, 23), batch="batch")
    maps, pooled = model.graph.node[1].output[0], model.graph.node[3].output[0]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in (maps, pooled))
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0, name="best"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("label", 7, ["batch"]))
    result = built(tmp_path, input_type, model)
    assert [(output.name, output.dtype, output.shape) for output in result.manifest.outputs] == [
        ("logits", "float32", ["batch", 4]),
        (maps, "float32", ["batch", 8, 17, 23]),
        (pooled, "float32", ["batch", 8]),
        ("label", "int64", ["batch"]),
    ]
    assert result.manifest.application.task == "features"
    with np.load(result.path / PARITY) as recorded:
        assert {f"output:{output.name}" for output in result.manifest.outputs} < set(recorded)
    assert verify_bundle(result.path).passed
