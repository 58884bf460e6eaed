"""What a build refuses, and what it fills in, before any stage runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from edgeformer.data import Preprocessing
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.graph.types import to_float_type
from edgeformer.models import create_model
from edgeformer.pipeline import build, export_model
from edgeformer.pipeline.plan import BuildPlan, make_plan
from edgeformer.pipeline.request import BuildRequest
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


def test_the_tensorrt_that_is_imported_is_checked_before_any_work(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files and its package say 1.7.1; what Python gets is 1.4.0."""
    site = tmp_path / "site"
    for name, text in (
        ("tensorrt_rtx", '__version__ = "1.7.1"\nfrom tensorrt_rtx_bindings import __version__\n'),
        ("tensorrt_rtx_bindings", '__version__ = "1.4.0"\n'),
    ):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    for name in [name for name in sys.modules if name.startswith("tensorrt")]:
        monkeypatch.delitem(sys.modules, name)
    with raises("EF830", "TensorRT-RTX 1.4.0", site / "tensorrt_rtx", "1.7 or newer, below 2", "PYTHONPATH") as caught:
        build(nano_onnx, output=tmp_path / "bundle", target="rtx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_another_processors_plugin_library_is_not_embedded(nano_onnx: Path, tmp_path: Path) -> None:
    with raises("EF831", "dgx-spark-rtx", "aarch64", "--embed-plugin"):
        build(nano_onnx, output=tmp_path / "bundle", target="dgx-spark-rtx", embed_plugin=True)
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


@pytest.mark.parametrize("target", ["rtx", "rtx-20", "rtx-30", "a100-rtx", "jetson-orin-nano"])
def test_a_target_that_does_not_take_a_precision_is_refused_before_any_work(
    nano_onnx: Path, tmp_path: Path, target: str
) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 112, 112), np.float32))
    with raises("EF545", target, "fp8", "8.9", "rtx-40", "rtx-50", "jetson-thor", "int8-weights"):
        build(nano_onnx, output=tmp_path / "out", target=target, precision="fp8", data=tmp_path / "images.npy")
    assert not (tmp_path / "out").exists()


def test_weights_alone_are_planned_without_images(nano_onnx: Path, tmp_path: Path) -> None:
    plan = _plan(nano_onnx, tmp_path / "out", precision="int4-weights", int4_block=64)
    assert plan.quantization is not None
    assert (plan.quantization.data, plan.quantization.int4_block) == (None, 64)
    assert not plan.form.one_weight_scale
    # Given images are what the forms are compared on, as for FP16.
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 112, 112), np.float32))
    with_data = _plan(nano_onnx, tmp_path / "out", precision="int8-weights", data=tmp_path / "images.npy")
    assert with_data.quantization is not None
    assert with_data.quantization.data is None
    assert "images.npy" in with_data.parity_inputs.describe()


def _folders(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.new("L", (8, 8), number).save(root / name / "x.png")
    return root


def _plan(model: Path | str, output: Path, **options: Any) -> BuildPlan:
    return make_plan(BuildRequest(model, output=output, target="jetson-orin-nano", use_plugin=False, **options))


def test_class_folders_are_matched_with_the_models_classes(nano_onnx: Path, tmp_path: Path) -> None:
    named = _folders(tmp_path / "named", "cat", "dog")
    numbered = _folders(tmp_path / "numbered", "3", "7")
    options = {"eval_data": named}
    for model, weights in ((str(nano_onnx), {}), ("biformer_nano", {"random_weights": True})):
        with raises("EF461", named, "2 class folders", "10 classes", "--labels"):
            _plan(model, tmp_path / "out", **options, **weights)
        plan = _plan(model, tmp_path / "out", eval_data=numbered, **weights)
        (batch,) = plan.parity_inputs.batches()
        assert batch.labels.tolist() == [3, 7]
        assert plan.labels is None  # eight of them are not known
    words = ["a", "dog", "b", "cat", "c", "d", "e", "f", "g", "h"]
    (tmp_path / "labels.txt").write_text("\n".join(words))
    plan = _plan(nano_onnx, tmp_path / "out", **options, labels=tmp_path / "labels.txt")
    assert plan.labels == tuple(words)
    (batch,) = plan.parity_inputs.batches()
    assert sorted(batch.labels.tolist()) == [1, 3]
    ten = _folders(tmp_path / "ten", *"abcdefghij")
    assert _plan(nano_onnx, tmp_path / "out", eval_data=ten).labels == tuple("abcdefghij")
    assert _plan(nano_onnx, tmp_path / "out", labels=tmp_path / "labels.txt").labels == tuple(words)
    five = _folders(tmp_path / "five", *"01234")
    assert _plan(nano_onnx, tmp_path / "out", eval_data=five).labels is None
    with raises("EF463", "9 labels", "10 classes"):
        (tmp_path / "labels.txt").write_text("\n".join(words[:9]))
        _plan(nano_onnx, tmp_path / "out", **options, labels=tmp_path / "labels.txt")


def test_folders_of_calibration_images_name_the_classes(nano_onnx: Path, tmp_path: Path) -> None:
    numbers = [str(number) for number in range(10)]
    all_of_them = _folders(tmp_path / "all", *reversed(numbers))
    assert _plan(nano_onnx, tmp_path / "out", data=all_of_them).labels == tuple(numbers)
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    named = _plan(nano_onnx, tmp_path / "out", data=all_of_them, labels=tmp_path / "labels.txt")
    assert named.labels == tuple("abcdefghij")
    for name, folders in (("some", numbers[:4]), ("beyond", [*numbers[1:], "10"]), ("split", [*"abcdefghi", "train"])):
        plan = _plan(nano_onnx, tmp_path / "out", data=_folders(tmp_path / name, *folders))
        assert plan.labels is None, name
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    for data in (tmp_path / "images.npy", images):
        assert _plan(nano_onnx, tmp_path / "out", data=data).labels is None
    assert _plan("biformer_small_detection", tmp_path / "out", random_weights=True, data=all_of_them).labels is None


def test_a_checkpoint_names_the_classes(tmp_path: Path) -> None:
    """Folders that are named like its classes are matched with them, others as if it had none."""
    words = tuple("bcdefghija")
    path = tmp_path / "weights.pth"
    torch.save({"model": create_model("biformer_nano").state_dict(), "class_names": list(words)}, path)
    named, other = _folders(tmp_path / "named", *sorted(words)), _folders(tmp_path / "other", *"ABCDEFGHIJ")
    for data, first in ((named, 9), (other, 0)):
        plan = _plan("biformer_nano", tmp_path / "out", checkpoint=path, eval_data=data)
        assert plan.labels == words
        (batch, *_) = plan.parity_inputs.batches()
        assert batch.labels[0] == first
    (tmp_path / "labels.txt").write_text("\n".join("klmnopqrst"))
    plan = _plan("biformer_nano", tmp_path / "out", checkpoint=path, labels=tmp_path / "labels.txt")
    assert plan.labels == tuple("klmnopqrst")
    partly = _folders(tmp_path / "partly", "a", "x")
    with raises("EF461", "x", "--labels"):
        _plan("biformer_nano", tmp_path / "out", checkpoint=path, eval_data=partly)
    with raises("EF843", path, "names 10 classes", "has 5"):
        _plan("biformer_nano", tmp_path / "out", checkpoint=path, overrides={"num_classes": 5})


def test_a_backbone_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with raises("EF840", "biformer_small_detection", "--labels"):
        _plan("biformer_small_detection", tmp_path / "out", random_weights=True, labels=tmp_path / "labels.txt")


def test_calibration_images_need_no_classes(nano_onnx: Path, tmp_path: Path) -> None:
    plan = _plan(nano_onnx, tmp_path / "out", precision="int8", data=_folders(tmp_path / "d", "train", "val"))
    assert plan.quantization is not None
    assert plan.quantization.data is not None
    assert plan.quantization.data.count == 2


def test_a_checkpoint_that_changes_before_it_is_loaded_is_refused(tmp_path: Path) -> None:
    """What the stage is recorded under is the hash of what was named; nothing may be published under it but that."""
    path = tmp_path / "weights.pth"
    model = create_model("biformer_nano")
    torch.save(model.state_dict(), path)
    source = _plan("biformer_nano", tmp_path / "out", checkpoint=path).source
    described = source.describe()
    torch.save({name: value * 2 for name, value in model.state_dict().items()}, path)
    with raises("EF161", path, "changed while it was read"):
        source.create()  # type: ignore[union-attr]
    assert source.describe() == described


def test_the_weights_that_were_taken_are_told(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    state = create_model("biformer_nano").state_dict()
    torch.save({"model": state, "model_ema": {name: value * 0.5 for name, value in state.items()}}, path)
    exported = [
        export_model("biformer_nano", output=tmp_path / "x.onnx", checkpoint=path, checkpoint_key=key)
        for key in (None, "model_ema")
    ]
    assert [each.checkpoint_key for each in exported] == ["model", "model_ema"]
    heads = [
        next(onnx.numpy_helper.to_array(t) for t in each.model.graph.initializer if 10 in t.dims) for each in exported
    ]
    assert np.array_equal(heads[0] * 0.5, heads[1])
    with raises("EF104", "--checkpoint-key"):
        export_model("biformer_nano", output=tmp_path / "x.onnx", random_weights=True, checkpoint_key="model")


def test_names_that_are_no_utf8(nano_onnx: Path, tmp_path: Path) -> None:
    model = tmp_path / os.fsdecode(b"caf\xe9.onnx")
    model.write_bytes(nano_onnx.read_bytes())
    assert _plan(model, tmp_path / "out").source.describe()["name"] == "caf\\xe9"
    with raises("EF101", "not UTF-8"):
        _plan(nano_onnx, tmp_path / os.fsdecode(b"out\xff"))
