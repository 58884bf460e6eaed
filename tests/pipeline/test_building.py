"""Builds from end to end: what a bundle holds, what is reused, and what a missed gate leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.artifacts import MARKER, sha256_of_file
from edgeformer.bundle import open_bundle
from edgeformer.bundle.contents import unlisted_files
from edgeformer.bundle.details import ParityDetails
from edgeformer.bundle.report_file import report_state
from edgeformer.errors import GateMissed
from edgeformer.graph.onnx_files import load_model
from edgeformer.pipeline import BuildResult, build, runner
from edgeformer.runtime import OnnxSession
from tests.pipeline.conftest import (
    CHECKPOINT,
    DIGITS,
    Recorder,
    engine_report,
    weight_scale_sizes,
)
from tests.present import present
from tests.raising import raises


def test_the_bundle_holds_what_its_manifest_says(fp16_bundle: BuildResult) -> None:
    manifest = open_bundle(fp16_bundle.path)
    assert manifest == fp16_bundle.manifest
    assert (manifest.precision, manifest.target.name, manifest.batch) == ("fp16", "rtx-40", [1, 2, 4])
    assert [(tensor.name, tensor.dtype, tensor.shape[1:]) for tensor in manifest.inputs + manifest.outputs] == [
        ("input", "float32", [3, 112, 112]),
        ("logits", "float32", [10]),
    ]
    on_disk = {path.name for path in fp16_bundle.path.iterdir()}
    assert on_disk == {*manifest.files, "manifest.json", "report.html", MARKER}
    for name in ("exported.onnx", "fused.onnx", "typed.onnx", "model.engine", "parity.npz", "libedgeformer_plugins.so"):
        assert manifest.files[name].sha256 == sha256_of_file(fp16_bundle.path / name)
    verdicts = {stage.name: stage.verdict for stage in manifest.stages}
    assert verdicts == {
        "import": "not judged",
        "fuse": "passed",
        "types": "not judged",
        "parity": "passed",
        "engine": "passed",
        "engine-parity": "not run",
        "plugin-comparison": "not judged",
    }
    parity = manifest.stage("engine-parity")
    assert parity is not None
    assert parity.note == "engine not run: no GPU"


def test_the_page_on_it_shows_the_manifest_and_the_folders_name(fp16_bundle: BuildResult) -> None:
    assert report_state(fp16_bundle.path) == "current"
    assert unlisted_files(fp16_bundle.path, set(fp16_bundle.manifest.files)) == ()
    page = (fp16_bundle.path / "report.html").read_text(encoding="utf-8")
    assert "edgeformer verify bundle --trust-bundle" in page
    parity = present(fp16_bundle.manifest.details(ParityDetails))
    assert [block.op is not None for block in parity.blocks].count(True) == 4
    assert all(block.snr_db is not None and 40 < block.snr_db < 90 for block in parity.blocks)
    assert {block.int8_layers for block in parity.blocks} == {0}
    assert [block.stage for block in present(parity.routing).blocks] == [0, 1, 2]


def test_recorded_outputs_are_the_exported_models(fp16_bundle: BuildResult) -> None:
    with np.load(fp16_bundle.path / "parity.npz", allow_pickle=False) as recorded:
        images, logits = recorded["input:input"], recorded["output:logits"]
    assert images.shape == (8, 3, 112, 112)
    again = OnnxSession(fp16_bundle.path / "exported.onnx").run({"input": images})["logits"]
    np.testing.assert_allclose(logits, again, rtol=1e-5, atol=1e-6)


def test_unchanged_stages_are_reused(fp16_bundle: BuildResult, nano_onnx: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, output)
    same = Recorder()
    result = build(nano_onnx, output=output, target="rtx-40", batch="1:2:4", observer=same)
    assert same.ran == []
    assert all(stage.reused for stage in result.manifest.stages if stage.verdict != "not run")
    assert result.manifest.files == fp16_bundle.manifest.files
    # Nothing would change: the bundle is the one that was there.
    for name in ("manifest.json", "report.html"):
        assert (output / name).read_bytes() == (fp16_bundle.path / name).read_bytes()
    (output / "report.html").unlink()
    build(nano_onnx, output=output, target="rtx-40", batch="1:2:4")
    assert report_state(output) == "current"

    other_batch = Recorder()
    build(nano_onnx, output=output, target="rtx-40", batch="1:2:8", observer=other_batch)
    assert other_batch.ran == ["engine", "plugin-comparison"]

    other_precision = Recorder()
    build(nano_onnx, output=output, target="rtx-40", batch="1:2:8", precision="fp32", observer=other_precision)
    assert other_precision.ran == ["types", "parity", "engine", "plugin-comparison"]
    open_bundle(output)


def test_a_damaged_file_is_made_again(fp16_bundle: BuildResult, nano_onnx: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, output)
    (output / "fused.onnx").write_bytes(b"damaged")
    recorder = Recorder()
    result = build(nano_onnx, output=output, target="rtx-40", batch="1:2:4", observer=recorder)
    assert recorder.ran == ["fuse"]
    assert result.manifest.files["fused.onnx"] == fp16_bundle.manifest.files["fused.onnx"]


def _break_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the typed graph wrong by doubling the classifier's bias and adding one."""
    from edgeformer.graph import types

    right = types.to_float_type

    def wrong(model: onnx.ModelProto, *words: Any, **options: Any) -> onnx.ModelProto:
        changed = right(model, *words, **options)
        name = changed.graph.node[-1].input[0]
        extra = onnx.helper.make_node("Neg", [name], ["wrong"])
        changed.graph.node.insert(len(changed.graph.node) - 1, extra)
        changed.graph.node[-1].input[0] = "wrong"
        return changed

    monkeypatch.setattr(types, "to_float_type", wrong)


def test_a_missed_gate_publishes_nothing_and_keeps_the_older_bundle(
    fp16_bundle: BuildResult, nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, output)
    _break_types(monkeypatch)
    with raises("EF801", "stage parity", "typed", "cosine", "0.999"):
        build(nano_onnx, output=output, target="rtx-40", precision="bf16")
    assert open_bundle(output) == fp16_bundle.manifest
    with pytest.raises(GateMissed):
        build(nano_onnx, output=tmp_path / "new", target="rtx-40", precision="bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_any_change_of_the_code_makes_stages_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edgeformer"
    shutil.copytree(Path(runner.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(runner, "__file__", str(package / "pipeline" / "runner.py"))
    seen = {runner._code_sha256.__wrapped__()}
    for changed in ("quantization/quantize.py", "graph/fuse.py", "engine/targets.json", "pipeline/stages.py"):
        with (package / changed).open("a") as file:
            file.write("\n")
        seen.add(runner._code_sha256.__wrapped__())
    assert len(seen) == 5


@pytest.mark.slow
def test_the_main_job_on_the_trained_checkpoint(tmp_path: Path) -> None:
    """INT8 loses at most half a point of top-1 and keeps 40 dB; each of the four blocks is a plugin layer."""
    result = build(
        "biformer_nano",
        checkpoint=CHECKPOINT,
        output=tmp_path / "bundle",
        target="rtx-40",
        precision="int8",
        data=DIGITS / "calibrate",
        eval_data=DIGITS / "evaluate",
        batch="1:8:32",
    )
    manifest = open_bundle(result.path)
    assert [stage.name for stage in manifest.stages if stage.verdict == "passed"] == [
        "export",
        "fuse",
        "parity",
        "engine",
    ]
    top1 = {precision: score.value for precision, score in manifest.accuracy.items()}
    assert set(top1) == {"fp32", "fp16", "int8"}
    assert top1["fp32"] >= 97
    assert top1["fp32"] - top1["int8"] <= 0.5
    parity = manifest.details(ParityDetails)
    assert parity is not None
    typed = next(form for form in parity.report.forms if form.name == "typed")
    assert ((typed.first or {})["logits"].snr_db or 0) >= 40
    assert engine_report(result).plugin.in_network == 4
    graph = load_model(result.path / "typed.onnx").graph
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) >= 16  # the inputs of qkv, wo, fc1, fc2, stem and downsampling
    assert weight_scale_sizes(result.path) == {"one"}  # which is what TensorRT-RTX does best with
    calibration = json.loads((result.path / "calibration.json").read_text())
    assert calibration["images"] > 0
