"""Bundles finished where they run: on TensorRT-RTX for real, on a Jetson's TensorRT by a double."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer import inference
from edgeformer.bundle import open_bundle, read_manifest
from edgeformer.bundle.details import DeviceDetails, EngineDetails, EngineParityDetails, LatencyDetails
from edgeformer.bundle.report_file import report_state
from edgeformer.inference import Model
from edgeformer.latency import bench
from edgeformer.machine import plugin_library
from edgeformer.ops.library_files import LIBRARY_NAME
from edgeformer.pipeline import BuildResult, build, finish_bundle, finishing
from edgeformer.pipeline.device_plan import make_finish_plan
from edgeformer.pipeline.stages import device
from edgeformer.report.content import verdict_of
from tests.pipeline.conftest import Recorder, Stopped, builds, stage_of, stop
from tests.raising import raises


@pytest.fixture(scope="session")
def orin_bundle(nano_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("orin") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin_library, "candidate_paths", lambda: ())
        build(nano_onnx, output=bundle, target="jetson-agx-orin", batch="1:2:4")
    return bundle


class Answers:
    """A model that gives what was recorded, multiplied."""

    def __init__(self, archive: Path, factor: float = 1.0) -> None:
        with np.load(archive) as recorded:
            self._inputs = recorded["input:input"]
            self._outputs = recorded["output:logits"] * np.float32(factor)
        self.batches: list[int] = []

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self.batches.append(len(feeds["input"]))
        rows = [int(np.argmin(np.abs(self._inputs - image).sum((1, 2, 3)))) for image in feeds["input"]]
        return {"logits": self._outputs[rows]}


@contextmanager
def as_model(answers: Answers) -> Iterator[Answers]:
    yield answers


def answering(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> None:
    monkeypatch.setattr(device, "_loaded", lambda engine, plan: as_model(answers))


@pytest.fixture
def timed_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is timed as an engine runs in ONNX Runtime; the paths that were loaded."""
    loaded: list[Path] = []

    def load(path: Path, **options: Any) -> Model:
        assert options["backend"] == "tensorrt"
        assert options["trust_bundle"]
        assert "model.engine" in open_bundle(path).files, "it was timed before it was published"
        loaded.append(path)
        return inference.load(path, backend="onnxruntime", threads=1)

    monkeypatch.setattr(bench, "load", load)
    return loaded


def test_an_engine_of_tensorrt_rtx_is_built_from_the_bundle(rtx_bundle: Path, fp16_bundle: BuildResult) -> None:
    before = read_manifest(rtx_bundle)
    result = finish_bundle(rtx_bundle)
    manifest = open_bundle(rtx_bundle)
    assert manifest == result.manifest
    engine = stage_of(manifest, "engine")
    assert (engine.verdict, engine.gate) == ("passed", "4 plugin layers for 4 op nodes")
    assert engine.files == ["model.engine", "model.engine.json"]
    # The same builder with the same graph, shapes and library.
    assert (rtx_bundle / "model.engine").stat().st_size == fp16_bundle.manifest.files["model.engine"].size
    assert (
        stage_of(manifest, "engine-parity").note
        == "engine not run: no GPU (no NVIDIA driver (libcuda.so.1 cannot be loaded))"
    )
    latency = stage_of(manifest, "latency")
    assert latency.verdict == "not run"
    assert latency.note == "not measured: no GPU (no NVIDIA driver (libcuda.so.1 cannot be loaded))"
    names = [stage.name for stage in manifest.stages]
    assert names[:4] == ["import", "fuse", "types", "parity"]
    assert names[4:] == ["device", "engine", "engine-parity", "latency", "plugin-comparison"]
    assert [stage for stage in manifest.stages if stage.name in ("import", "fuse", "types", "parity")] == before.stages[
        :4
    ]
    assert set(manifest.files) == {*before.files, "model.engine", "model.engine.json"}
    machine = manifest.details(DeviceDetails)
    assert machine is not None
    assert machine.machine.tensorrt.startswith("1.7")
    assert [path.name for path in rtx_bundle.parent.iterdir()] == ["bundle"]


def test_a_finished_bundle_is_finished_again_without_building(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_bundle(rtx_bundle, trust_bundle=True)
    built = (rtx_bundle / "model.engine").read_bytes()
    watched = Recorder()
    manifest = finish_bundle(rtx_bundle, trust_bundle=True, observer=watched).manifest
    assert "engine" not in watched.ran
    assert stage_of(manifest, "engine").reused
    assert (rtx_bundle / "model.engine").read_bytes() == built
    # Without trust nothing that lies there is taken for an engine that was built here.
    watched = Recorder()
    finish_bundle(rtx_bundle, observer=watched)
    assert "engine" in watched.ran


def test_what_was_built_is_not_lost_when_the_machine_stops(rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "compare", stop)
        with pytest.raises(Stopped):
            finish_bundle(rtx_bundle, trust_bundle=True)
    between = open_bundle(rtx_bundle)
    # Whoever loads the bundle now finds no engine.
    assert "model.engine" not in between.files
    assert {"candidate.engine", "candidate.engine.json"} < set(between.files)
    assert stage_of(between, "engine-parity").note == "not compared yet: finish the bundle"
    built = (rtx_bundle / "candidate.engine").read_bytes()
    watched = Recorder()
    finish_bundle(rtx_bundle, trust_bundle=True, observer=watched)
    assert "engine" not in watched.ran
    assert (rtx_bundle / "model.engine").read_bytes() == built
    assert not list(rtx_bundle.glob("candidate*"))
    open_bundle(rtx_bundle)


def test_another_library_in_the_bundle_is_not_opened_unasked(rtx_bundle: Path) -> None:
    library = rtx_bundle / LIBRARY_NAME
    content = library.read_bytes() + b"x"
    library.unlink()
    library.write_bytes(content)
    text = (rtx_bundle / "manifest.json").read_text()
    manifest = json.loads(text)
    manifest["files"][LIBRARY_NAME] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (rtx_bundle / "manifest.json").write_text(json.dumps(manifest))
    with raises("EF671", LIBRARY_NAME, "--trust-bundle"):
        finish_bundle(rtx_bundle)
    assert json.loads((rtx_bundle / "manifest.json").read_text()) == manifest
    finish_bundle(rtx_bundle, trust_bundle=True)
    assert (rtx_bundle / LIBRARY_NAME).read_bytes() == content


def test_a_damaged_bundle_is_refused(rtx_bundle: Path) -> None:
    (rtx_bundle / "plugin.onnx").unlink()
    (rtx_bundle / "plugin.onnx").write_bytes(b"")
    with raises("EF704", "plugin.onnx"):
        finish_bundle(rtx_bundle)


def test_a_bundle_of_a_version_without_a_spec_is_built_again(rtx_bundle: Path) -> None:
    path = rtx_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    (engine,) = (stage for stage in manifest["stages"] if stage["name"] == "engine")
    del engine["details"]["spec"]
    path.write_text(json.dumps(manifest))
    with raises("EF930", "build it again"):
        finish_bundle(rtx_bundle)


def test_a_table_that_means_another_machine_by_the_name(rtx_bundle: Path) -> None:
    path = rtx_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["target"] |= {"sm": 75, "sms": [75]}
    path.write_text(json.dumps(manifest))
    with raises("EF931", "75", "89"):
        finish_bundle(rtx_bundle)


def test_a_jetsons_bundle_is_not_finished_elsewhere(orin_bundle: Path) -> None:
    before = (orin_bundle / "manifest.json").read_bytes()
    with raises("EF604", "jetson-agx-orin", "SM 87"):
        finish_bundle(orin_bundle)
    assert (orin_bundle / "manifest.json").read_bytes() == before


def test_a_jetson_finishes_its_bundle(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    answers = Answers(bundle / "parity.npz", 1.0001)
    answering(monkeypatch, answers)
    watched = Recorder()
    manifest = finish_bundle(bundle, trust_bundle=True, latency_seconds=0, observer=watched).manifest
    assert watched.ran == ["device", "engine", "engine-parity"]
    assert manifest.stage("latency") is None
    assert open_bundle(bundle) == manifest
    assert (bundle / "model.engine").read_text() == "engine with 4 plugins"
    assert answers.batches == [2, 2, 2, 2]  # the batch that the engine is tuned for
    engine = stage_of(manifest, "engine")
    assert (engine.verdict, engine.note) == ("passed", None)
    assert engine.files == ["model.engine", "model.engine.json", "timing.cache"]
    parity = stage_of(manifest, "engine-parity")
    assert parity.verdict == "passed"
    assert isinstance(parity.details, EngineParityDetails)
    first, second = parity.details.report.forms
    assert (first.name, second.name, second.against) == ("recorded", "engine", "recorded")
    assert second.first is not None
    assert second.first["logits"].max_abs_relative == pytest.approx(1e-4, rel=0.01)
    machine = manifest.details(DeviceDetails)
    assert machine is not None
    assert machine.machine.model_dump() == {
        "gpu": "Orin",
        "sm": 87,
        "tensorrt": "10.3.0",
        "cuda": "12.6",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "power_mode": "MAXN",
        "memory_bytes": 64_000_000_000,
        "free_bytes": 40_000_000_000,
        "swap_bytes": 32_000_000_000,
    }
    (given,) = builds(jetson)
    assert given == {"TACTIC_DRAM": 30_000_000_000, "cache": ""}
    # The library that the engine needs is there now.
    assert LIBRARY_NAME in manifest.files
    # The next build begins with the times of this one.
    finish_bundle(bundle, trust_bundle=True, workspace_bytes=1 << 20, latency_seconds=0)
    assert builds(jetson)[1:] == [{"WORKSPACE": 1 << 20, "TACTIC_DRAM": 30_000_000_000, "cache": "timed;"}]


@pytest.mark.parametrize("way", ["reported", "killed"])
def test_where_memory_runs_out_less_workspace_is_tried(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    answering(monkeypatch, Answers(bundle / "parity.npz"))
    jetson.write_text(json.dumps({"works_below": 300 << 20, "out_of_memory": way}))
    manifest = finish_bundle(bundle, trust_bundle=True, latency_seconds=0).manifest
    assert [limits.get("WORKSPACE") for limits in builds(jetson)] == [None, 1 << 30, 1 << 28]
    tuned = [limits["TACTIC_DRAM"] for limits in builds(jetson)]
    assert tuned == [30_000_000_000, 15_000_000_000, 7_500_000_000]
    assert (
        stage_of(manifest, "engine").note
        == "memory ran out with 1024 MiB of workspace, built with 256 MiB of workspace"
    )
    details = manifest.details(EngineDetails)
    assert details is not None
    assert details.report is not None
    assert details.report.workspace_bytes == 1 << 28


def test_where_memory_always_runs_out(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    before = read_manifest(bundle)
    jetson.write_text(json.dumps({"works_below": 0, "out_of_memory": "reported"}))
    with raises("EF932", "64 MiB", "40.0 GB were free", "swap", "OutOfMemory"):
        finish_bundle(bundle, trust_bundle=True)
    assert open_bundle(bundle) == before
    # An operator that TensorRT has no kernel for is told as such.
    jetson.write_text(json.dumps({"works_below": 0, "out_of_memory": "no kernel"}))
    with raises("EF625", "Could not find any implementation"):
        finish_bundle(bundle, trust_bundle=True)


def test_an_engine_that_gives_other_outputs_is_left_out(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    answering(monkeypatch, Answers(bundle / "parity.npz", -1.0))
    with raises("EF933", "cosine", "no engine"):
        finish_bundle(bundle, trust_bundle=True)
    manifest = open_bundle(bundle)
    assert "model.engine" not in manifest.files
    assert not list(bundle.glob("*.engine*"))
    assert stage_of(manifest, "engine-parity").verdict == "missed"
    assert stage_of(manifest, "engine").verdict == "not run"
    # Nothing is wrong with the next one.
    answering(monkeypatch, Answers(bundle / "parity.npz"))
    finished = finish_bundle(bundle, trust_bundle=True, latency_seconds=0).manifest
    assert stage_of(finished, "engine-parity").verdict == "passed"


def test_a_finished_engine_is_timed(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed_here: list[Path]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    answering(monkeypatch, Answers(bundle / "parity.npz"))
    watched = Recorder()
    manifest = finish_bundle(bundle, latency_seconds=0.1, observer=watched).manifest
    assert watched.ran == ["device", "engine", "engine-parity", "latency"]
    assert set(timed_here) == {bundle}
    assert open_bundle(bundle) == manifest
    latency = manifest.details(LatencyDetails)
    assert latency is not None
    (figures,) = latency.report.figures
    assert (latency.name, figures.name, figures.precision, figures.batch) == ("bundle", "bundle", "fp16", 1)
    assert figures.end_to_end.samples >= 2
    median = figures.end_to_end.p50.ms or figures.end_to_end.mean_ms  # which the fewest runs do not tell
    assert (stage_of(manifest, "latency").note or "").startswith(f"{median:.3g} ms end to end")
    assert report_state(bundle) == "current"
    # Finished again it is timed again; figures of another engine go.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "compare", stop)
        with pytest.raises(Stopped):
            finish_bundle(bundle, trust_bundle=True, workspace_bytes=1 << 20)
    assert read_manifest(bundle).stage("latency") is None


def test_what_cannot_be_timed_is_finished_all_the_same(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the runtime finds no GPU for the engine."""
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    answering(monkeypatch, Answers(bundle / "parity.npz"))
    manifest = finish_bundle(bundle, trust_bundle=True, latency_seconds=0.1).manifest
    assert open_bundle(bundle) == manifest
    assert "model.engine" in manifest.files
    latency = stage_of(manifest, "latency")
    assert (latency.verdict, latency.details) == ("not run", None)
    assert (latency.note or "").startswith("not measured: ")
    assert str(tmp_path) not in (latency.note or "")
    assert report_state(bundle) == "current"
    # Gates passed; that there are no figures is told and does not open the question again.
    verdict = verdict_of(manifest)
    assert verdict.kind == "passed"
    assert any(reason.startswith("latency: not measured: ") for reason in verdict.reasons)


def test_a_crash_while_it_is_timed_costs_nothing(
    orin_bundle: Path, jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(orin_bundle, bundle)
    answering(monkeypatch, Answers(bundle / "parity.npz"))
    monkeypatch.setattr(bench, "load", stop)
    with pytest.raises(Stopped):
        finish_bundle(bundle, trust_bundle=True)
    manifest = open_bundle(bundle)
    assert "model.engine" in manifest.files
    assert stage_of(manifest, "engine-parity").verdict == "passed"
    assert manifest.stage("latency") is None


def test_a_library_that_the_engine_does_not_need_is_not_opened_to_time_it(orin_bundle: Path, jetson: Path) -> None:
    plan = make_finish_plan(orin_bundle)
    assert finishing._obstacle(plan, True) == ""
    files = {**plan.manifest.files, LIBRARY_NAME: plan.manifest.files["typed.onnx"]}
    there = replace(plan, library=None, manifest=plan.manifest.model_copy(update={"files": files}))
    assert f"{LIBRARY_NAME} came with the bundle and is not trusted" in finishing._obstacle(there, True)
    assert finishing._obstacle(replace(there, trusted=True), True) == ""


def test_finishing_needs_neither_torch_nor_onnx(rtx_bundle: Path) -> None:
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'onnx', 'onnxruntime', 'onnxscript', 'onnx_graphsurgeon',\n"
        "                                  'polygraphy', 'ml_dtypes', 'cryptography', 'scipy'):\n"
        "            raise ImportError(f'{name} is not for devices')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import edgeformer.pipeline.benchmark\n"  # what times, where there is a GPU
        "from edgeformer.cli import cli\n"
        f"cli.main(['finish', {str(rtx_bundle)!r}, '--trust-bundle'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "engine      " in done.stdout
    assert "model.engine" in open_bundle(rtx_bundle).files
