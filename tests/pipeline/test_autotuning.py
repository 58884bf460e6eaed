"""`finish --autotune`: of several engines of one model the fastest that is right is kept, on doubles of a GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_finish import quick_recipe
from benchmarks.pretended_gpu import PretendedGpu
from edgeformer.bundle import Manifest, open_bundle, read_manifest
from edgeformer.bundle.details import (
    AutotuneDetails,
    CandidatesDetails,
    EngineDetails,
    EngineParityDetails,
    LatencyDetails,
    ParityDetails,
)
from edgeformer.engine import build_process
from edgeformer.engine.build_process import BuildFailed, EngineBuild
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.graph.onnx_files import load_model
from edgeformer.latency import bench
from edgeformer.machine import plugin_library
from edgeformer.machine.devices import GpuSurvey
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.pipeline import build, device_plan, finish_bundle, publishing
from edgeformer.pipeline.stages import device
from edgeformer.records.autotune import TunedRecord
from edgeformer.records.engine import EngineReport, EngineSpec, PluginEvidence
from tests.pipeline.conftest import CHECKPOINT, DIGITS, Recorder, Stopped, builds, stage_of, stop
from tests.raising import raises

INT8, FP16, FLOAT_ATTENTION = "int8", "fp16", "int8-float-attention"


@pytest.fixture(scope="session")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a Jetson AGX Orin, with INT8 attention."""
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin_library, "candidate_paths", lambda: ())
        build(
            "biformer_nano",
            recipe=quick_recipe(folder),
            checkpoint=CHECKPOINT,
            output=folder / "bundle",
            target="jetson-agx-orin",
            precision="int8",
            data=DIGITS / "calibrate",
            calibration_images=8,
            cross_compile=False,
        )
    return folder / "bundle"


@pytest.fixture
def bundle(int8_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(int8_bundle, tmp_path / "tuned")
    return tmp_path / "tuned"


@pytest.fixture
def gpu(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    """What engines do on the Jetson."""
    pretended = PretendedGpu()
    monkeypatch.setattr(device, "_loaded", pretended.load)
    monkeypatch.setattr(bench, "bench", pretended.bench)
    return pretended


class Builder:
    """Builds an engine at once: its content is the name of the graph."""

    def __init__(self) -> None:
        self.faults: dict[str, BaseException] = {}
        self.built: list[str] = []

    def compile_file(self, place: Callable[[Path], Path], spec: EngineSpec, **options: Any) -> EngineBuild:
        name = place(Path()).name
        self.built.append(name)
        if name in self.faults:
            raise self.faults[name]
        options["timing_cache"].write_bytes(b"timed;" * len(self.built))
        return EngineBuild(name.encode(), report_on(name, spec))


def report_on(name: str, spec: EngineSpec) -> EngineReport:
    return EngineReport(
        tensorrt_version="10.3.0",
        parsed_layers=5,
        engine_layers=None,
        plugin=PluginEvidence(in_network=4, in_engine=None, source="the double"),
        activation_bytes=None,
        weight_bytes=None,
        build_seconds=1.0,
        tensors=(),
        warnings=(),
        flavour="tensorrt",
        target="jetson-agx-orin",
        sm=87,
        sms=(87,),
        engine_sha256="",
        engine_bytes=len(name),
        op_nodes=spec.op_nodes,
        plugin_version=None,
        peak_host_bytes=1,
        profile=spec.shapes,
    )


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder()
    monkeypatch.setattr(build_process, "compile_file", made.compile_file)
    # The page takes longer than all else.
    monkeypatch.setattr(publishing, "renew_report", lambda folder, name=None: None)
    return made


def autotune(bundle: Path, **options: Any) -> Manifest:
    return finish_bundle(bundle, autotune=True, latency_seconds=0.5, **{"trust_bundle": True, **options}).manifest


def tuned(manifest: Manifest) -> dict[str, TunedRecord]:
    details = manifest.details(AutotuneDetails)
    assert details is not None
    return {one.name: one for one in details.candidates}


def outcomes(manifest: Manifest) -> dict[str, str]:
    return {name: one.outcome for name, one in tuned(manifest).items()}


def test_the_build_puts_the_candidates_into_the_bundle(int8_bundle: Path) -> None:
    manifest = open_bundle(int8_bundle)
    details = manifest.details(CandidatesDetails)
    assert details is not None
    files = {one.name: (one.precision, one.verdict, one.file) for one in details.candidates}
    assert files == {
        INT8: ("int8", "passed", None),
        FP16: ("fp16", "passed", "autotune-fp16.onnx"),
        FLOAT_ATTENTION: ("int8", "passed", "autotune-int8-float-attention.onnx"),
    }
    assert stage_of(manifest, "candidates").files == ["autotune-fp16.onnx", "autotune-int8-float-attention.onnx"]
    # The figures are those of the forms that the parity stage compared.
    parity = manifest.details(ParityDetails)
    assert parity is not None
    forms = {form.name: form for form in parity.report.forms}
    for name, form in ((INT8, "typed"), (FP16, "fp16"), (FLOAT_ATTENTION, "float-attention")):
        (one,) = (one for one in details.candidates if one.name == name)
        assert one.snr_db == (forms[form].first or {})["logits"].snr_db
        assert "meets" in one.gate
    # As the parser of a device takes them: the op without its body.
    for file in ("autotune-fp16.onnx", "autotune-int8-float-attention.onnx"):
        model = load_model(int8_bundle / file)
        assert sum(map(is_op, model.graph.node)) == 4
        assert not any(function.name == "BiLevelRoutingAttention" for function in model.functions)
    quantized = {
        file: sum(node.op_type == "QuantizeLinear" for node in load_model(int8_bundle / file).graph.node)
        for file in ("plugin.onnx", "autotune-int8-float-attention.onnx", "autotune-fp16.onnx")
    }
    assert (
        quantized["plugin.onnx"]
        > quantized["autotune-int8-float-attention.onnx"]
        > quantized["autotune-fp16.onnx"]
        == 0
    )


def test_the_fastest_is_kept(bundle: Path, jetson: Path, gpu: PretendedGpu) -> None:
    """Built by the double of TensorRT, in processes of their own."""
    gpu.milliseconds = {INT8: 1.5, FP16: 1.0, FLOAT_ATTENTION: 1.4}
    before = open_bundle(bundle)
    watched = Recorder()
    manifest = autotune(bundle, observer=watched)
    assert watched.ran == [
        *(f"engine of {name}" for name in (INT8, FP16, FLOAT_ATTENTION)),
        *("device", "autotune", "engine-parity"),
    ]
    assert open_bundle(bundle) == manifest
    # One builder after the other, each begins with the times of those before.
    assert [given["cache"] for given in builds(jetson)] == ["", "timed;", "timed;timed;"]
    assert outcomes(manifest) == {FP16: "kept", INT8: "slower", FLOAT_ATTENTION: "slower"}
    details = manifest.details(AutotuneDetails)
    assert details is not None
    assert details.kept == FP16
    assert details.text.startswith("ship fp16: 1.4")
    assert tuned(manifest)[FP16].p50_ms == pytest.approx(1.0, rel=0.02)
    assert tuned(manifest)[INT8].p50_ms == pytest.approx(1.5, rel=0.02)
    assert {(one.name, one.reference) for one in details.comparisons} == {
        (second, first) for first, second in ((INT8, FP16), (INT8, FLOAT_ATTENTION), (FP16, FLOAT_ATTENTION))
    }
    # The engine is the bundle's as any other, and what it computes in is told.
    engine = manifest.details(EngineDetails)
    assert engine is not None
    assert (engine.candidate, engine.report is not None) == (FP16, True)
    assert (manifest.precision, manifest.engine_precision) == ("int8", "fp16")
    parity = manifest.details(EngineParityDetails)
    assert parity is not None
    assert "cosine 1 meets >= 0.9999" in parity.report.forms[-1].text  # FP16's gate
    latency = manifest.details(LatencyDetails)
    assert latency is not None
    assert latency.name == FP16
    made = {name for name in set(manifest.files) - set(before.files) if not name.startswith("lib")}
    assert made == {"model.engine", "model.engine.json", "timing.cache"}
    names = [stage.name for stage in manifest.stages]
    assert names[-5:] == ["device", "autotune", "engine", "engine-parity", "latency"]
    # Finished again without choosing it is the chosen one's engine, and nothing is built.
    again = finish_bundle(bundle, trust_bundle=True, latency_seconds=0).manifest
    assert stage_of(again, "engine").reused
    assert again.engine_precision == "fp16"
    assert len(builds(jetson)) == 3


def test_of_those_that_do_not_differ_the_more_accurate_is_kept(
    bundle: Path, gpu: PretendedGpu, builder: Builder
) -> None:
    gpu.factors = {INT8: 1.001, FLOAT_ATTENTION: 1.0001}
    manifest = autotune(bundle)
    assert outcomes(manifest) == {FP16: "kept", FLOAT_ATTENTION: "no difference", INT8: "no difference"}
    assert list(outcomes(manifest)) == [FP16, FLOAT_ATTENTION, INT8]  # by accuracy, and timed in this order
    assert gpu.timed == [[FP16, FLOAT_ATTENTION, INT8]]
    # Of one precision it is the figure that decides.
    gpu.milliseconds = {FP16: 2.0}
    manifest = autotune(bundle)
    assert outcomes(manifest) == {FP16: "slower", FLOAT_ATTENTION: "kept", INT8: "no difference"}
    assert (manifest.precision, manifest.engine_precision) == ("int8", None)
    engine = manifest.details(EngineDetails)
    assert engine is not None
    assert engine.candidate == FLOAT_ATTENTION
    assert (bundle / "model.engine").read_bytes() == b"autotune-int8-float-attention.onnx"


def test_the_bundles_own_form_can_be_the_fastest(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    gpu.milliseconds = {FP16: 2.0, FLOAT_ATTENTION: 1.5}
    manifest = autotune(bundle)
    assert outcomes(manifest)[INT8] == "kept"
    engine = manifest.details(EngineDetails)
    assert engine is not None
    assert engine.candidate is None
    assert (bundle / "model.engine").read_bytes() == b"plugin.onnx"


def test_one_that_misses_its_gate_is_left_out(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    gpu.milliseconds, gpu.factors = {FP16: 0.5}, {FP16: -1.0}
    manifest = autotune(bundle)
    assert outcomes(manifest) == {INT8: "kept", FLOAT_ATTENTION: "no difference", FP16: "missed its gate"}
    missed = tuned(manifest)[FP16]
    assert "cosine -1 MISSES >= 0.9999" in missed.reason
    assert missed.p50_ms is None
    assert gpu.timed == [[INT8, FLOAT_ATTENTION]]
    assert stage_of(manifest, "autotune").verdict == "passed"


def test_where_all_miss_their_gates_there_is_no_engine(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    autotune(bundle)
    gpu.factors = dict.fromkeys((INT8, FP16, FLOAT_ATTENTION), -1.0)
    with raises("EF936", "int8: missed its gate", "fp16: missed its gate", "no engine"):
        autotune(bundle)
    manifest = open_bundle(bundle)
    assert not list(bundle.glob("*.engine*"))
    assert stage_of(manifest, "autotune").verdict == "missed"
    assert stage_of(manifest, "engine").verdict == "not run"
    assert set(outcomes(manifest).values()) == {"missed its gate"}
    assert (manifest.stage("latency"), manifest.engine_precision, gpu.timed[1:]) == (None, None, [])
    # Nothing is wrong with the next ones.
    gpu.factors = {}
    assert outcomes(autotune(bundle))[FP16] == "kept"


def test_one_whose_engine_cannot_be_built_is_left_out(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    builder.faults = {
        "autotune-fp16.onnx": BuildFailed("EF625", "TensorRT cannot build it"),
        "autotune-int8-float-attention.onnx": BuildFailed("EF625", "OutOfMemory"),
    }
    manifest = autotune(bundle)
    assert outcomes(manifest) == {INT8: "kept", FP16: "no engine", FLOAT_ATTENTION: "no engine"}
    assert tuned(manifest)[FP16].reason == "TensorRT cannot build it"
    assert "memory ran out building the engine" in tuned(manifest)[FLOAT_ATTENTION].reason
    details = manifest.details(AutotuneDetails)
    assert details is not None
    assert details.text == "int8 alone meets its gate"
    assert manifest.details(LatencyDetails) is not None
    # The bundle's own form may be the one.
    builder.faults = {"plugin.onnx": BuildFailed("EF625", "TensorRT cannot build it")}
    manifest = autotune(bundle, workspace_bytes=1 << 20)
    assert outcomes(manifest) == {FP16: "kept", FLOAT_ATTENTION: "no difference", INT8: "no engine"}


def test_where_no_engine_can_be_built_the_first_reason_is_told(
    bundle: Path, gpu: PretendedGpu, builder: Builder
) -> None:
    before = open_bundle(bundle)
    graphs = ("plugin.onnx", "autotune-fp16.onnx", "autotune-int8-float-attention.onnx")
    builder.faults = {name: BuildFailed("EF625", f"TensorRT cannot build {name}") for name in graphs}
    with raises("EF625", "plugin.onnx"):
        autotune(bundle)
    assert open_bundle(bundle) == before
    # What no other candidate would mend ends it at once.
    builder.faults = {"plugin.onnx": EnvironmentFault("EF602", "the disk is full")}
    builder.built.clear()
    with raises("EF602"):
        autotune(bundle)
    assert builder.built == ["plugin.onnx"]


def test_one_that_does_not_run_is_left_out(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    gpu.faults = {FP16: EnvironmentFault("EF863", "the GPU's memory has run out")}
    manifest = autotune(bundle)
    assert outcomes(manifest) == {INT8: "kept", FLOAT_ATTENTION: "no difference", FP16: "does not run"}
    assert tuned(manifest)[FP16].reason == "the GPU's memory has run out"


def test_where_none_runs_the_engines_stay_for_another_try(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    gpu.faults = dict.fromkeys((INT8, FP16, FLOAT_ATTENTION), EnvironmentFault("EF863", "the GPU's memory has run out"))
    with raises("EF863", "has run out"):
        autotune(bundle)
    assert sum(name.endswith(".engine") for name in open_bundle(bundle).files) == 3
    gpu.faults = {}
    builder.built.clear()
    assert outcomes(autotune(bundle))[FP16] == "kept"
    assert builder.built == []


def test_where_nothing_is_decided_the_bundles_own_form_stays(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    gpu.noise, gpu.milliseconds = 0.5, {FP16: 0.97}
    manifest = autotune(bundle)
    assert outcomes(manifest) == {INT8: "kept", FP16: "not decided", FLOAT_ATTENTION: "not decided"}
    details = manifest.details(AutotuneDetails)
    assert details is not None
    assert details.text.startswith("int8 is kept: not decided between ")
    assert "--seconds" in details.text


def test_where_nothing_can_be_timed_the_bundles_own_form_stays(
    bundle: Path, gpu: PretendedGpu, builder: Builder
) -> None:
    gpu.timing_fault = InputError("EF865", "only a run tells the size of output `boxes`")
    manifest = autotune(bundle)
    assert outcomes(manifest) == {INT8: "kept", FP16: "not timed", FLOAT_ATTENTION: "not timed"}
    latency = stage_of(manifest, "latency")
    assert latency.note == "not measured: only a run tells the size of output `boxes`"
    # Where that misses its gate, it is the most accurate of the others.
    gpu.factors = {INT8: -1.0, FLOAT_ATTENTION: 1.01}
    assert outcomes(autotune(bundle))[FP16] == "kept"


def test_engines_that_were_built_are_taken_when_the_machine_stopped(
    bundle: Path, gpu: PretendedGpu, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_bundle(bundle, trust_bundle=True, latency_seconds=0)
    working = (bundle / "model.engine").read_bytes()
    builder.built.clear()
    builder.faults = {"autotune-int8-float-attention.onnx": Stopped()}
    with pytest.raises(Stopped):
        autotune(bundle)
    between = open_bundle(bundle)
    assert {"autotune-int8.engine", "autotune-fp16.engine"} < set(between.files)
    # Whoever loads the bundle now has the engine from before.
    assert (bundle / "model.engine").read_bytes() == working
    assert stage_of(between, "engine-parity").verdict == "passed"
    builder.faults, builder.built = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "bench", stop)
        with pytest.raises(Stopped):
            autotune(bundle)
    assert builder.built == ["autotune-int8-float-attention.onnx"]
    assert (bundle / "model.engine").read_bytes() == working
    gpu.milliseconds = {FP16: 0.5}
    manifest = autotune(bundle)
    assert builder.built == ["autotune-int8-float-attention.onnx"]
    assert outcomes(manifest)[FP16] == "kept"
    assert not list(bundle.glob("autotune-*.engine*"))
    assert not [stage.name for stage in manifest.stages if stage.name.startswith("engine of ")]
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


def test_without_trust_nothing_that_lies_there_is_taken(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    builder.faults = {"autotune-int8-float-attention.onnx": Stopped()}
    with pytest.raises(Stopped):
        autotune(bundle)
    builder.faults, builder.built = {}, []
    manifest = autotune(bundle, trust_bundle=False)
    assert len(builder.built) == 3
    assert outcomes(manifest)[FP16] == "kept"


def test_finishing_without_choosing_drops_what_choosing_left(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    builder.faults = {"autotune-fp16.onnx": Stopped()}
    with pytest.raises(Stopped):
        autotune(bundle)
    assert (bundle / "autotune-int8.engine").is_file()
    manifest = finish_bundle(bundle, trust_bundle=True, latency_seconds=0).manifest
    assert open_bundle(bundle) == manifest
    assert not list(bundle.glob("autotune-*.engine*"))
    assert not [stage.name for stage in manifest.stages if stage.name.startswith("engine of ")]


def test_a_bundle_without_candidates(bundle: Path, gpu: PretendedGpu, rtx_bundle: Path) -> None:
    with raises("EF934", "--precision int8", "--autotune-candidates"):
        autotune(rtx_bundle)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    (stage,) = (stage for stage in manifest["stages"] if stage["name"] == "candidates")
    for one in stage["details"]["candidates"][1:]:
        one |= {"verdict": "missed", "file": None}
    path.write_text(json.dumps(manifest))
    with raises("EF934"):
        autotune(bundle)
    # A name is part of files' names.
    stage["details"]["candidates"][1]["name"] = "../../fp16"
    path.write_text(json.dumps(manifest))
    with raises("EF702"):
        autotune(bundle)


def test_no_gpu(bundle: Path, gpu: PretendedGpu, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_manifest(bundle)
    monkeypatch.setattr(device_plan, "find_gpus", lambda: GpuSurvey((), None, None, "no driver"))
    with raises("EF935", "no GPU (no driver)"):
        autotune(bundle)
    assert (builder.built, open_bundle(bundle)) == ([], before)


def test_a_choice_needs_times(bundle: Path, gpu: PretendedGpu) -> None:
    with raises("EF104", "autotune"):
        finish_bundle(bundle, autotune=True, latency_seconds=0)


def test_the_graph_that_was_chosen_is_gone(bundle: Path, gpu: PretendedGpu, builder: Builder) -> None:
    gpu.milliseconds = {FP16: 0.5}
    autotune(bundle)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["autotune-fp16.onnx"]
    path.write_text(json.dumps(manifest))
    with raises("EF937", "'fp16'", "build the bundle again"):
        finish_bundle(bundle, trust_bundle=True)
