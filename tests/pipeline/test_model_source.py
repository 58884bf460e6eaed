"""ONNX files as people have them, built up to the typed graph (the device builds the engine)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.bundle.application import PlainImage
from edgeformer.bundle.details import ParityDetails
from edgeformer.bundle.files import EXPORTED, PARITY, TYPED
from edgeformer.data import ArrayInput, Preprocessing
from edgeformer.errors import GateMissed
from edgeformer.graph.onnx_files import save_model
from edgeformer.pipeline import BuildResult, build, verify_bundle
from edgeformer.pipeline.model_source import OnnxFile, describe_preprocessing, model_source
from edgeformer.quantization import quantize
from edgeformer.runtime import OnnxSession
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

TARGET = "jetson-orin-nano"
KINDS = {"float": TensorProto.FLOAT, "half": TensorProto.FLOAT16, "bfloat": TensorProto.BFLOAT16}
PIXELS = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "int64": TensorProto.INT64}


def network(
    kind: str = "float", *, last: bool = False, sizes: tuple[Any, Any] = (16, 24), batch: Any = 1
) -> onnx.ModelProto:
    """Conv, Relu, pooling to logits; a pixel input is normalized in the graph, an input with channels last moved."""
    inner = KINDS.get(kind, TensorProto.FLOAT)
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    name = "images"

    def add(op_type: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, inputs, [f"t{len(nodes)}"], name=f"n{len(nodes)}", **attributes))
        return f"t{len(nodes) - 1}"

    weights = {
        "weight": rng.standard_normal((8, 3, 3, 3)) * 0.2,
        "head": rng.standard_normal((8, 4)),
        "half": np.asarray(127.5),
    }
    if last:
        name = add("Transpose", name, perm=[0, 3, 1, 2])
    if kind in PIXELS:
        name = add("Cast", name, to=inner)
        name = add("Sub", name, "half")
        name = add("Div", name, "half")
    else:
        del weights["half"]
    name = add("Relu", add("Conv", name, "weight", pads=[1, 1, 1, 1]))
    name = add("MatMul", add("Flatten", add("GlobalAveragePool", name)), "head")
    nodes[-1].output[0] = "logits"
    shape = [batch, *sizes, 3] if last else [batch, 3, *sizes]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", (KINDS | PIXELS)[kind], shape)],
        [helper.make_tensor_value_info("logits", inner, [batch, 4])],
        [_tensor(value, key, inner) for key, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def _tensor(value: np.ndarray, name: str, kind: int) -> TensorProto:
    tensor: TensorProto = helper.make_tensor(name, kind, value.shape, value.astype(np.float32).reshape(-1))
    return tensor


def built(model: onnx.ModelProto, folder: Path, **options: Any) -> BuildResult:
    save_model(model, folder / "model.onnx")
    return build(folder / "model.onnx", output=folder / "bundle", target=TARGET, **options)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("kind", [*KINDS, *PIXELS])
def test_every_input_is_fed_what_it_takes(kind: str, last: bool, tmp_path: Path) -> None:
    model = network(kind, last=last)
    result = built(model, tmp_path, precision="bf16" if kind == "bfloat" else "fp16")

    with np.load(result.path / PARITY) as recorded:
        given, logits = recorded["input:images"], recorded["output:logits"].astype(np.float32)
    assert given.shape == ((8, 16, 24, 3) if last else (8, 3, 16, 24))
    assert given.dtype == (np.dtype(kind) if kind in PIXELS else np.float32)
    if kind in PIXELS:
        assert 0 <= given.min() < 50 < 200 < given.max() <= 255
    with OnnxSession(result.path / TYPED) as session:
        # Floats are float32 at the engine's border; what takes pixels takes them there, too.
        assert session.inputs["images"].dtype == given.dtype
        outputs = np.concatenate([session.run({"images": given[i : i + 1]})["logits"] for i in range(8)])
    tolerance = 0.05 if kind == "bfloat" else 5e-3
    np.testing.assert_allclose(outputs, logits, atol=tolerance * np.abs(logits).max())
    with OnnxSession(model) as session:
        one = given[:1].astype(session.inputs["images"].dtype)
        np.testing.assert_array_equal(session.run({"images": one})["logits"].astype(np.float32), logits[:1])
    assert verify_bundle(result.path).passed


def test_images_in_files_become_pixels(tmp_path: Path) -> None:
    save_model(network("uint8"), tmp_path / "model.onnx")
    source = model_source(tmp_path / "model.onnx")
    assert isinstance(source, OnnxFile)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    assert isinstance(source.preprocessing, Preprocessing)
    np.testing.assert_allclose(source.preprocessing.normalize(pixels), pixels.transpose(0, 3, 1, 2), atol=1e-3)
    explicit = Preprocessing(16, 24, (0, 0, 0), (1 / 255,) * 3, "bilinear", 1.0)
    normalizing = Preprocessing(16, 24)
    for asked in (normalizing, "scale"):
        with raises("EF348", "images", "0.485" if asked is normalizing else "[1.0, 1.0, 1.0]", "--preprocessing none"):
            model_source(tmp_path / "model.onnx", preprocessing=asked)
    assert model_source(tmp_path / "model.onnx", preprocessing="none").preprocessing == explicit
    assert model_source(tmp_path / "model.onnx", preprocessing=explicit).preprocessing == explicit


@pytest.mark.parametrize("word", ["none", "scale"])
def test_inputs_that_are_not_normalized_as_for_imagenet(word: Any, tmp_path: Path) -> None:
    """The word alone says it; what resizes them is the file's own word, or nothing of ImageNet's."""
    path = tmp_path / "model.onnx"
    save_model(network(), path)
    prepared = model_source(path, preprocessing=word).preprocessing
    assert prepared == Preprocessing(16, 24, resize_mode="bilinear", crop_fraction=1.0).with_normalization(word)
    own = Preprocessing(16, 24, crop_fraction=0.7)
    described = network()
    describe_preprocessing(described, own)
    save_model(described, path)
    assert model_source(path, preprocessing=word).preprocessing == own.with_normalization(word)
    named = model_source("biformer_nano", random_weights=True, input_size=(56, 84), preprocessing=word).preprocessing
    assert isinstance(named, Preprocessing)
    assert (named.height, named.width, named.resize_mode, named.normalization) == (56, 84, "bilinear", word)
    with raises("EF413", "'mean_std'", "'none'", "'scale'"):
        model_source(path, preprocessing="mean_std")  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["none", "scale"])
def test_pixels_that_no_one_normalizes_are_what_parity_feeds(word: Any, tmp_path: Path) -> None:
    result = built(network(last=True), tmp_path, preprocessing=word)
    with np.load(result.path / PARITY) as recorded:
        given = recorded["input:images"] * (1 if word == "none" else 255)
    assert 0 <= given.min() < 50 < 200 < given.max() <= 255
    np.testing.assert_allclose(given, np.rint(given), atol=1e-4)
    image = result.manifest.application.image
    assert isinstance(image, PlainImage)
    assert (image.normalization, image.layout, image.input) == (word, "NHWC", "images")
    assert result.manifest.application.task == "classification"
    assert verify_bundle(result.path).passed


@pytest.mark.parametrize("kind", ["uint8", "int64"])
@pytest.mark.parametrize("last", [False, True])
def test_a_model_that_takes_pixels_is_quantized(kind: str, last: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 24)).astype(np.float32)
    model = network(kind, last=last)
    result = quantize(model, ArraySamples(pixels))
    assert [decision.op_type for decision in result.decisions if decision.quantized] == ["Conv"]
    feed = (pixels.transpose(0, 2, 3, 1) if last else pixels).astype(kind)[:1]
    with OnnxSession(model) as before, OnnxSession(result.model) as after:
        expected, got = (session.run({"images": feed})["logits"] for session in (before, after))
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["half", "bfloat"])
def test_a_half_model_is_not_calibrated(kind: str) -> None:
    samples = ArraySamples(np.zeros((1, 3, 16, 24), np.float32))
    with raises("EF324", "FP16" if kind == "half" else "BF16", "give the FP32 model"):
        quantize(network(kind), samples)


@pytest.mark.parametrize(("kind", "precision"), [("half", "fp32"), ("half", "bf16"), ("bfloat", "fp16")])
def test_a_half_model_is_built_at_its_own_precision(kind: str, precision: Any, tmp_path: Path) -> None:
    with raises("EF324", "computes in", precision.upper()):
        built(network(kind), tmp_path, precision=precision)


@pytest.mark.parametrize("last", [False, True])
def test_a_free_size_is_fixed(last: bool, tmp_path: Path) -> None:
    model = network(last=last, sizes=("height", "width"), batch="batch")
    with raises("EF322", "height", "--input-size"):
        built(model, tmp_path)
    result = built(model, tmp_path, input_size=(16, 24))
    with OnnxSession(result.path / TYPED) as session:
        assert session.inputs["images"].shape == (("batch", 16, 24, 3) if last else ("batch", 3, 16, 24))


def test_the_case_of_the_suffix_does_not_matter(tmp_path: Path) -> None:
    save_model(network(), tmp_path / "MODEL.ONNX")
    assert isinstance(model_source(tmp_path / "MODEL.ONNX"), OnnxFile)


@pytest.mark.parametrize("batch", ["1:8:99999999999", "9" * 5000])
def test_a_batch_beyond_tensorrts_tensors(batch: str, tmp_path: Path) -> None:
    with raises("EF620", *(["2147483647", (2**31 - 1) // (3 * 16 * 24)] if ":" in batch else [])):
        built(network(batch="batch"), tmp_path, batch=batch)


def test_weights_beyond_fp16_are_refused_before_any_work(tmp_path: Path) -> None:
    model = network()
    weight = numpy_helper.to_array(model.graph.initializer[0]) * 1e6
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), "weight"))
    with raises("EF307", "'weight' reaches", "65504", "bf16"):
        built(model, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_an_activation_that_overflows_is_named(tmp_path: Path) -> None:
    model = network()
    for tensor in model.graph.initializer:
        wide = numpy_helper.to_array(tensor) * 10000
        tensor.CopyFrom(numpy_helper.from_array(wide.astype(np.float32), tensor.name))
    with pytest.raises(GateMissed) as caught:
        built(model, tmp_path)
    assert caught.value.code == "EF801"
    for words in ("overflow: tensor 'logits' of MatMul 'n4' reaches", "65504", "--precision bf16 or fp32"):
        assert words in str(caught.value)
    assert built(model, tmp_path, precision="bf16").manifest.precision == "bf16"


def arrays(shape: str = "N,5,7") -> onnx.ModelProto:
    """A head over flattened arrays that are no images; the first of its two outputs is not for people."""
    features = int(np.prod([int(size) for size in shape.split(",")[1:] if size.isdecimal()]))
    weight = np.random.default_rng(0).standard_normal((features, 4)).astype(np.float32)
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[{shape}] x) => (float[N,4] y) '
        "{ flat = Flatten(x) y = MatMul(flat, weight) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return model


@pytest.mark.parametrize("shape", [(35,), (5, 7), (4, 6, 5), (1, 9, 9), (2, 3, 4, 5)])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_input_that_is_no_image(shape: tuple[int, ...], precision: Any, tmp_path: Path) -> None:
    samples = np.random.default_rng(1).standard_normal((6, *shape)).astype(np.float32)
    np.savez(tmp_path / "data.npz", images=samples, labels=np.arange(6) % 4)
    model = arrays(",".join(["N", *map(str, shape)]))
    recipe = {"recipe": tmp_path / "recipe.json", "data": list(samples)} if precision == "int8" else {}
    all_of_them = {"name": "*", "op_type": "MatMul", "quantize": True, "because": "it is all there is"}
    (tmp_path / "recipe.json").write_text(json.dumps({"schema_version": 1, "name": "all", "overrides": [all_of_them]}))
    options = {"preprocessing": "none", "batch": "1:2:4", "precision": precision, **recipe}
    with raises("EF321", shape[-1], "--preprocessing none"):
        built(model, tmp_path, **{**options, "preprocessing": None})
    result = built(model, tmp_path, **options, eval_data=tmp_path / "data.npz", max_drop=100.0)
    assert result.manifest.application.image is None
    assert result.manifest.application.task == "classification"
    assert result.manifest.inputs[0].shape[1:] == list(shape)
    assert result.manifest.accuracy["fp32"].samples == 6
    with np.load(result.path / PARITY) as recorded:
        np.testing.assert_array_equal(recorded["input:x"], samples)
    assert verify_bundle(result.path).passed
    assert verify_bundle(result.path, data=iter(samples)).samples == 6
    with raises("EF410", "[6, 2]", str(shape[0])):
        np.save(tmp_path / "other.npy", np.zeros((1, 6, 2), np.float32))
        verify_bundle(result.path, data=tmp_path / "other.npy")
    with raises("EF841", tmp_path, ".npy"):
        verify_bundle(result.path, data=tmp_path)


def test_what_only_images_have_is_refused_of_other_inputs(tmp_path: Path) -> None:
    save_model(arrays(), tmp_path / "model.onnx")
    for options, words in (({"input_size": (8, 8)}, "--input-size"), ({"input_type": "uint8"}, "--input uint8")):
        with raises("EF841", "['N', 5, 7]", words):
            model_source(tmp_path / "model.onnx", preprocessing="none", **options)
    save_model(arrays("N,5,K"), tmp_path / "free.onnx")
    with raises("EF321", "['N', 5, 'K']", "needs a size"):
        model_source(tmp_path / "free.onnx", preprocessing="none")
    source = model_source(tmp_path / "model.onnx", preprocessing="none")
    assert source.preprocessing == ArrayInput((5, 7))
    with raises("EF620", 2**31 // 35):
        built(arrays(), tmp_path, preprocessing="none", batch="1:1:99999999999")


def decoded() -> onnx.ModelProto:
    """Scores in their order, and which they are: FP16 weights make equal what FP32 ones tell apart."""
    model = network(batch="batch")
    rng = np.random.default_rng(0)
    alike = rng.uniform(0.2, 0.3, (1, 3, 3, 3)) + 1e-6 * rng.standard_normal((8, 3, 3, 3))
    for tensor, value in zip(model.graph.initializer, (alike, np.eye(8, 4)), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([4]), "four"))
    model.graph.node.append(helper.make_node("TopK", ["logits", "four"], ["scores", "order"], name="rank"))
    del model.graph.output[:]
    for name, kind in (("scores", TensorProto.FLOAT), ("order", TensorProto.INT64)):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, ["batch", 4]))
    return model


def test_an_output_behind_a_ranking_says_why_it_missed_and_can_be_accepted(tmp_path: Path) -> None:
    with pytest.raises(GateMissed) as caught:
        built(decoded(), tmp_path)
    for words in ("'order'", "TopK 'rank'", "--accept-output order", "as well scores"):
        assert words in str(caught.value)
    with raises("EF347", "'classes'", "'scores', 'order'"):
        built(decoded(), tmp_path, accept_outputs=["classes"])

    result = built(decoded(), tmp_path, accept_outputs=["order"])
    parity = result.manifest.details(ParityDetails)
    assert parity is not None
    assert parity.accepted_outputs == ("order",)
    typed = parity.report.forms[-1]
    assert typed.first is not None
    assert (typed.first["order"].integer_agreement or 0) < 0.995
    assert "'order' not judged, as --accept-output asks for" in typed.text
    # It stays accepted when the bundle is verified again.
    report = verify_bundle(result.path)
    assert report.passed
    assert "'order' not judged" in report.forms[2].text
    assert (result.path / EXPORTED).is_file()
