"""`verify_bundle`: judge a published bundle, and never call passed what did not run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeformer.artifacts import sha256_of_file
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.pipeline import BuildResult, build, verify_bundle
from tests.present import present
from tests.raising import raises

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors"


def test_every_form_is_judged_and_the_engine_is_not_run(fp16_bundle: BuildResult) -> None:
    report = verify_bundle(fp16_bundle.path)
    statuses = {form.name: (form.status, form.text) for form in report.forms}
    assert statuses["exported"][0] == "reference"
    assert statuses["fused"][0] == "passed"
    assert statuses["typed"][0] == "passed"
    assert statuses["pytorch"] == ("not run", "pytorch not run: the bundle was made from an ONNX file")
    assert statuses["engine"] == ("not run", "engine not run: no GPU")
    assert set(report.not_run) == {"pytorch", "engine"}
    assert report.samples == 8
    typed = next(form for form in report.forms if form.name == "typed")
    assert typed.first is not None
    assert 45 < present(typed.first["logits"].snr_db) < 110  # FP16 rounds, and does no more than that
    assert typed.routing_first is not None
    assert len(typed.routing_first.blocks) == 4
    assert typed.routing_first.agreement > 0.9


def test_other_data(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    images = np.random.default_rng(3).standard_normal((5, 3, 112, 112), np.float32)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(5))
    report = verify_bundle(fp16_bundle.path, data=tmp_path / "data.npz")
    assert (report.samples, report.labelled) == (5, True)
    accuracies = [form.accuracy for form in report.forms if form.status != "not run"]
    assert all(accuracy is not None and accuracy.samples == 5 for accuracy in accuracies)


def test_a_damaged_bundle_is_not_verified(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    shutil.copytree(fp16_bundle.path, tmp_path / "bundle")
    (tmp_path / "bundle" / "typed.onnx").write_bytes(b"x")
    with raises("EF704", "typed.onnx"):
        verify_bundle(tmp_path / "bundle")


def test_a_missed_gate_is_one_json_document_and_exit_code_3(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    """Turn the typed graph's logits around and put its new hash into the manifest: only the gate can tell."""
    bundle = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, bundle)
    typed = load_model(bundle / "typed.onnx")
    last = typed.graph.node[-1]
    typed.graph.node.insert(len(typed.graph.node) - 1, onnx.helper.make_node("Neg", [last.input[0]], ["turned"]))
    typed.graph.node[-1].input[0] = "turned"
    save_model(typed, bundle / "typed.onnx")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["typed.onnx"] = {
        "sha256": sha256_of_file(bundle / "typed.onnx"),
        "size": (bundle / "typed.onnx").stat().st_size,
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    words = [sys.executable, "-m", "edgeformer", "verify", str(bundle)]
    result = subprocess.run([*words, "--json"], capture_output=True, text=True)
    assert result.returncode == 3
    document = json.loads(result.stdout)
    assert document["error"]["kind"] == "GateMissed"
    assert "form 'typed' against 'exported': cosine -" in document["error"]["message"]
    assert [form["name"] for form in document["forms"] if form["status"] == "missed"] == ["typed"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 3
    assert "missed" in result.stdout
    assert "form 'typed' against 'exported'" in result.stderr


def test_an_onnx_bundle_has_no_checkpoint(fp16_bundle: BuildResult) -> None:
    with raises("EF104", "ONNX file", "checkpoint"):
        verify_bundle(fp16_bundle.path, checkpoint=CHECKPOINT)


@pytest.mark.slow
def test_pytorch_runs_where_the_checkpoint_is(tmp_path: Path) -> None:
    moved = tmp_path / "weights.safetensors"
    shutil.copyfile(CHECKPOINT, moved)
    result = build("biformer_nano", checkpoint=moved, output=tmp_path / "bundle", target="jetson-agx-orin")
    report = verify_bundle(result.path)
    assert [(form.name, form.status) for form in report.forms] == [
        ("pytorch", "reference"),
        ("exported", "passed"),
        ("fused", "passed"),
        ("typed", "passed"),
    ]
    moved.unlink()
    report = verify_bundle(result.path)
    assert report.forms[0].name == "exported"
    assert report.forms[-1].status == "not run"
    assert "is not there; name it with --checkpoint" in report.forms[-1].text
    assert verify_bundle(result.path, checkpoint=CHECKPOINT).forms[0].name == "pytorch"
    with raises("EF102", moved):
        verify_bundle(result.path, checkpoint=moved)
    moved.write_bytes(b"other")
    with raises("EF706", moved, "--checkpoint"):
        verify_bundle(result.path, checkpoint=moved)
    # Nobody named it: a file of that name may be anybody's. It is not judged, and nothing is compared with it.
    report = verify_bundle(result.path)
    assert report.not_run == ("pytorch",)
    assert report.forms[0].name == "exported"
    assert f"the checkpoint {moved.name} is another file than it was made from" in report.forms[-1].text
