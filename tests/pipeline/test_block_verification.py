"""`verify_bundle_blocks` and ``edgeformer verify --per-block`` on a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeformer.artifacts import sha256_of_file
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.pipeline import BuildResult, build, verify_bundle_blocks
from tests.present import present
from tests.raising import raises

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors"
DIGITS = ROOT / "calibration" / "digits" / "calibrate"


def planted(bundle: Path, target: Path, name: str, change: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy of a bundle in which one of its graphs was changed, and the manifest has its new hash."""
    shutil.copytree(bundle, target)
    model = load_model(target / name)
    change(model)
    save_model(model, target / name)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["files"][name] = {
        "sha256": sha256_of_file(target / name),
        "size": (target / name).stat().st_size,
    }
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def fewer_regions(model: onnx.ModelProto) -> None:
    node = [node for node in model.graph.node if is_op(node)][2]
    for item in node.attribute:
        if item.name == "topk":
            item.i -= 1


def test_a_bundle_from_an_onnx_file(fp16_bundle: BuildResult) -> None:
    report = verify_bundle_blocks(fp16_bundle.path)
    assert [(form.name, form.status) for form in report.forms] == [
        ("pytorch", "not run"),
        ("exported", "reference"),
        ("fused", "passed"),
        ("typed", "passed"),
        ("engine", "not run"),
    ]
    assert report.forms[0].text == "pytorch not run: the bundle was made from an ONNX file"
    assert report.samples == 8
    names = [block.name for block in report.forms[3].blocks]
    assert [name for name in names if name.startswith("stages")] == [
        *("stages.0.0", "stages.1.0", "stages.2.0", "stages.2.1", "stages.3.0")
    ]


def test_images_of_the_users(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    images = np.random.default_rng(3).standard_normal((3, 3, 112, 112), np.float32)
    np.save(tmp_path / "data.npy", images)
    report = verify_bundle_blocks(fp16_bundle.path, data=tmp_path / "data.npy")
    assert (report.samples, report.passed) == (3, True)


def test_a_wrong_block_is_one_json_document_and_exit_code_3(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    bundle = planted(fp16_bundle.path, tmp_path / "bundle", "typed.onnx", fewer_regions)
    words = [sys.executable, "-m", "edgeformer", "verify", str(bundle), "--per-block"]
    result = subprocess.run([*words, "--json"], capture_output=True, text=True)
    assert result.returncode == 3, result.stderr
    document = json.loads(result.stdout)
    assert (document["passed"], document["error"]["code"]) == (False, "EF960")
    assert "stages.2.0" in document["error"]["message"]
    typed = next(form for form in document["forms"] if form["name"] == "typed")
    wrong = [block for block in typed["blocks"] if block["faults"]]
    assert [block["name"] for block in wrong] == ["stages.2.0"]
    assert wrong[0]["faults"][0]["kind"] == "topk"


def test_what_it_has_no_use_for(fp16_bundle: BuildResult) -> None:
    words = [sys.executable, "-m", "edgeformer", "verify", str(fp16_bundle.path), "--per-block", "--max-drop", "2"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 2
    assert "EF961" in result.stderr
    assert "--max-drop" in result.stderr


def test_a_damaged_bundle(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    shutil.copytree(fp16_bundle.path, tmp_path / "bundle")
    (tmp_path / "bundle" / "fused.onnx").write_bytes(b"x")
    with raises("EF704", "fused.onnx"):
        verify_bundle_blocks(tmp_path / "bundle")


@pytest.mark.slow
def test_int8_pixels_and_pytorch(tmp_path: Path) -> None:
    """Trained weights, an input of bytes that the graph normalizes, and a scale that is doubled."""
    result = build(
        "biformer_nano",
        checkpoint=CHECKPOINT,
        output=tmp_path / "bundle",
        target="jetson-agx-orin",
        precision="int8",
        data=DIGITS,
        input_type="uint8",
    )
    report = verify_bundle_blocks(result.path, checkpoint=CHECKPOINT)
    assert [(form.name, form.status) for form in report.forms] == [
        ("pytorch", "reference"),
        *((name, "passed") for name in ("exported", "fused", "typed")),
    ]
    # What is expected of INT8 is close to what it is: half of what is allowed and less.
    assert all(present(block.verdict).value < 2 for block in report.forms[3].blocks)

    def doubled(model: onnx.ModelProto) -> None:
        quantizer = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][4]
        (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == quantizer.input[1]]
        array = numpy_helper.to_array(scale)
        scale.CopyFrom(numpy_helper.from_array((2 * array).astype(array.dtype), scale.name))

    bad = planted(result.path, tmp_path / "bad", "typed.onnx", doubled)
    wrong = present(verify_bundle_blocks(bad).forms[-1].first_wrong)
    assert wrong.faults[0].kind == "scale"
