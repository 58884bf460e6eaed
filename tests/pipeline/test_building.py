"""Builds from end to end: what a bundle holds, what is reused, and what a missed gate leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import open_bundle
from edgeformer.bundle.details import EngineDetails, FuseDetails, ParityDetails, QuantizeDetails
from edgeformer.cli._summary import print_summary
from edgeformer.data import Preprocessing
from edgeformer.errors import EnvironmentFault, GateMissed, InputError
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.graph.qdq import representable_scale
from edgeformer.graph.types import to_float_type
from edgeformer.machine import plugin_library
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.machine.plugin_library import find_plugin_library
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op
from edgeformer.pipeline import BuildResult, Observer, build, runner
from edgeformer.pipeline.stages.parity import FLOAT_ATTENTION
from edgeformer.runtime import OnnxSession
from tests.pipeline.conftest import engine_report

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors"
DIGITS = ROOT / "calibration" / "digits"


class Recorder(Observer):
    def __init__(self) -> None:
        self.ran: list[str] = []

    def started(self, stage: str) -> None:
        self.ran.append(stage)


def test_the_bundle_holds_what_its_manifest_says(fp16_bundle: BuildResult) -> None:
    manifest = open_bundle(fp16_bundle.path)
    assert manifest == fp16_bundle.manifest
    assert (manifest.precision, manifest.target.name, manifest.batch) == ("fp16", "rtx-40", [1, 2, 4])
    assert [(tensor.name, tensor.dtype, tensor.shape[1:]) for tensor in manifest.inputs + manifest.outputs] == [
        ("input", "float32", [3, 112, 112]),
        ("logits", "float32", [10]),
    ]
    on_disk = {path.name for path in fp16_bundle.path.iterdir()}
    assert on_disk == {*manifest.files, "manifest.json"}
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


def test_the_engine_has_one_plugin_layer_per_routing_block(fp16_bundle: BuildResult) -> None:
    engine = fp16_bundle.manifest.stage("engine")
    assert engine is not None
    typed = load_model(fp16_bundle.path / "typed.onnx")
    assert sum(is_op(node) for node in typed.graph.node) == 4
    report = engine_report(fp16_bundle)
    assert report.plugin.in_network == 4
    shapes = report.profile["input"]
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 3, 112, 112), (2, 3, 112, 112), (4, 3, 112, 112))


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
    with pytest.raises(GateMissed, match=r"stage parity missed its gate: typed: cosine .* MISSES >= 0.999"):
        build(nano_onnx, output=output, target="rtx-40", precision="bf16")
    assert open_bundle(output) == fp16_bundle.manifest
    with pytest.raises(GateMissed):
        build(nano_onnx, output=tmp_path / "new", target="rtx-40", precision="bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_device_target_ends_after_the_typed_graph(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_library, "candidate_paths", lambda: ())
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin", batch="1:2:4", max_aux_streams=0)
    assert not linears_as_convolutions(result)  # nobody has seen TensorRT itself gain by them
    assert set(result.manifest.files) == {"exported.onnx", "fused.onnx", "typed.onnx", "parity.npz"}
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert engine.verdict == "not run"
    assert engine.note is not None
    assert "built on the device itself (SM 87, aarch64)" in engine.note
    assert isinstance(engine.details, EngineDetails)
    steps = engine.details.left_to_do
    assert "build the plugin library for SM 87" in steps[0]
    assert any("typed.onnx" in step and step.endswith(", max_aux_streams=0") for step in steps)
    assert result.manifest.stage("engine-parity") is None


def test_a_device_target_gets_the_library_that_was_cross_compiled_for_it(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "cross" / "libedgeformer_plugins.so"
    library.parent.mkdir()
    library.write_bytes(b"for another processor")
    metadata = {"version": "0.1.0", "tensorrt_headers": "10.14.1", "cuda": "12.6", "cpu": "aarch64"}
    library.with_suffix(".json").write_text(json.dumps({**metadata, "architectures": ["87"], "ptx": []}))
    monkeypatch.setattr(plugin_library, "candidate_paths", lambda: (library,))
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin")
    assert {"libedgeformer_plugins.so", "libedgeformer_plugins.json"} < set(result.manifest.files)
    assert (result.path / library.name).read_bytes() == b"for another processor"
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert isinstance(engine.details, EngineDetails)
    assert engine.details.left_to_do[0].endswith("has CUDA 12.6, for libedgeformer_plugins.so")
    without = build(nano_onnx, output=tmp_path / "without", target="jetson-agx-orin", use_plugin=False)
    assert "libedgeformer_plugins.so" not in without.manifest.files


def test_without_the_plugin_the_engine_comes_from_the_body(nano_onnx: Path, tmp_path: Path) -> None:
    result = build(nano_onnx, output=tmp_path / "bundle", target="rtx-30", use_plugin=False)
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert engine_report(result).plugin.in_network == 0
    assert engine.verdict == "not judged"
    assert engine.note == "built from the op's ONNX body, without the plugin"
    assert "libedgeformer_plugins.so" not in result.manifest.files


def test_the_plugin_library_can_lie_in_the_engine(nano_onnx: Path, tmp_path: Path) -> None:
    library = find_plugin_library()
    assert library is not None
    bundle = tmp_path / "bundle"
    limits: dict[str, Any] = {"max_aux_streams": 1, "workspace_bytes": 8 << 30}
    result = build(nano_onnx, output=bundle, target="rtx-30", embed_plugin=True, **limits)
    assert library.path.read_bytes() in (bundle / "model.engine").read_bytes()
    assert not [name for name in result.manifest.files if name.startswith("lib")]
    engine = result.manifest.stage("engine")
    assert engine is not None
    report = engine_report(result)
    assert report.plugin_embedded is True
    assert (report.max_aux_streams, report.workspace_bytes) == (1, 8 << 30)
    with pytest.raises(InputError, match="--embed-plugin with --no-plugin"):
        build(nano_onnx, output=bundle, target="rtx-30", use_plugin=False, embed_plugin=True)


def test_limits_are_checked_before_anything_is_done(nano_onnx: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    for limits, message in (({"max_aux_streams": -1}, "-1 auxiliary streams"), ({"workspace_bytes": 0}, "limit 0")):
        with pytest.raises(InputError, match=message):
            build(nano_onnx, output=tmp_path / "bundle", target="rtx-30", observer=recorder, **limits)  # type: ignore[arg-type]
    assert recorder.ran == []


def test_lepe_is_fused_where_it_is_asked_for(nano_onnx: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    output = tmp_path / "bundle"
    build(nano_onnx, output=output, target="rtx-30", use_plugin=False)
    result = build(nano_onnx, output=output, target="rtx-30", use_plugin=False, fuse_lepe=True, observer=recorder)
    assert recorder.ran[0] == "fuse"  # the older bundle's stages are not of this option
    fused = result.manifest.stage("fuse")
    assert fused is not None
    assert fused.note == "4 of 4 routing-attention blocks fused, LePE into 4 of 4 op nodes"
    assert isinstance(fused.details, FuseDetails)
    assert [report.status for report in fused.details.fusion.lepe] == ["fused"] * 4
    assert [(block.attributes or {})["lepe_kernel"] for block in fused.details.fusion.blocks] == [5] * 4
    typed = load_model(output / "typed.onnx")
    assert [len(node.input) for node in typed.graph.node if is_op(node)] == [3] * 4
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert engine_report(result).op_nodes == 4


def linears_as_convolutions(result: BuildResult) -> bool:
    """Whether the 20 Linears of feature maps are convolutions in the typed graph, and the stage says so."""
    typed = load_model(result.path / "typed.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in typed.graph.initializer}
    pointwise = [n for n in typed.graph.node if n.op_type == "Conv" and shapes[n.input[1]][2:] == [1, 1]]
    assert len(pointwise) in (0, 20)
    types = result.manifest.stage("types")
    assert types is not None
    assert ("20 Linears as 1 x 1 convolutions" in (types.note or "")) == bool(pointwise)
    return bool(pointwise)


def test_linears_become_convolutions_at_free_batch_sizes(
    nano_onnx: Path, fp16_bundle: BuildResult, tmp_path: Path
) -> None:
    without = build(
        nano_onnx,
        output=tmp_path / "bundle",
        target="rtx-40",
        batch="1:2:4",
        linears_as_convolutions=False,
        compare_plugin=False,
    )
    assert linears_as_convolutions(fp16_bundle)
    assert not linears_as_convolutions(without)
    layers = []
    for result in (fp16_bundle, without):
        engine = result.manifest.stage("engine")
        assert engine is not None
        layers.append(engine_report(result).engine_layers or 0)
    # Bias, GELU and residual are part of a convolution; behind a MatMul each is a kernel of its own at a free batch.
    assert layers[0] < layers[1]


def weight_scale_sizes(bundle: Path) -> set[str]:
    """Of the INT8 weights of MatMul and Conv nodes: "one" scale or one "each" channel."""
    graph = load_model(bundle / "typed.onnx").graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("MatMul", "Conv") and node.input[1] in made]
    return {"each" if constants[made[node.input[1]].input[1]].dims else "one" for node in layers}


def test_tensorrt_keeps_a_weight_scale_for_each_channel(nano_onnx: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(4, 3, 112, 112)).astype(np.float32)
    fast = {"observer": {"kind": "min_max"}, "balance": False, "correct_bias": False, "min_snr_db": None}
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"schema_version": 1, "name": "fast", **fast, "overrides": []}))
    result = build(
        nano_onnx,
        output=tmp_path / "bundle",
        target="jetson-agx-orin",
        precision="int8",
        data=images,
        recipe=recipe,
        max_drop=100,
    )
    assert weight_scale_sizes(result.path) == {"each"}


def test_a_graph_of_fixed_batch(nano_onnx: Path, tmp_path: Path) -> None:
    model = load_model(nano_onnx)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = tmp_path / "fixed.onnx"
    save_model(model, fixed)
    with pytest.raises(InputError, match="the graph fixes the batch at 2, --batch asks for 1:2:4"):
        build(fixed, output=tmp_path / "bundle", target="rtx-40", batch="1:2:4")
    result = build(fixed, output=tmp_path / "bundle", target="rtx-40")
    assert result.manifest.batch == [2, 2, 2]
    assert not linears_as_convolutions(result)


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


@pytest.mark.parametrize(
    ("kind", "precision", "message"),
    [
        ("float16", "fp32", "has FP16 weights and cannot become FP32"),
        ("float16", "bf16", "has FP16 weights and cannot become BF16"),
        ("bfloat16", "fp16", "has BF16 weights and cannot become FP16"),
    ],
)
def test_a_typed_graph_is_not_relabelled(
    nano_onnx: Path, tmp_path: Path, kind: Any, precision: Any, message: str
) -> None:
    save_model(to_float_type(load_model(nano_onnx), kind), tmp_path / "half.onnx")
    with pytest.raises(InputError, match=message):
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
    with pytest.raises(InputError, match=r"is quantized already \(1 Q/DQ nodes\)"):
        build(tmp_path / "q.onnx", output=tmp_path / "bundle", target="rtx-40")


def test_an_rtx_target_without_tensorrt_rtx_is_the_machines_fault(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("engine.targets", "machine.backends"):
        monkeypatch.setattr(f"edgeformer.{room}.find_backend", lambda _flavour: None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'edgeformer\[rtx\]'"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40")
    assert list(tmp_path.iterdir()) == []


def test_another_gpu_in_the_machine_is_no_fault(
    fp16_bundle: BuildResult, nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines for RTX targets are built on any machine, also on one with another GPU."""
    other = Gpu(index=0, name="GPU of another kind", sm=90, memory_bytes=1 << 30)
    survey = GpuSurvey(gpus=(other,), driver_version=None, cuda_version="13.0", problem="")
    monkeypatch.setattr("edgeformer.verify.forms.find_gpus", lambda: survey)
    output = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, output)
    result = build(nano_onnx, output=output, target="rtx-40", batch="1:2:4")
    parity = result.manifest.stage("engine-parity")
    assert parity is not None
    assert parity.verdict == "not run"
    assert parity.note == "engine not run: it is for SM 89, and this machine's GPU is a GPU of another kind (SM 90)"


def test_preprocessing_and_input_size_have_to_agree(nano_onnx: Path, tmp_path: Path) -> None:
    prepared = Preprocessing(128, 128)
    with pytest.raises(InputError, match="fixes the height at 112; input size or preprocessing asks for 128"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", preprocessing=prepared)
    with pytest.raises(InputError, match="the preprocessing is for 128x128, --input-size asks for 112x112"):
        build(
            "biformer_nano",
            output=tmp_path / "bundle",
            target="rtx-40",
            random_weights=True,
            preprocessing=prepared,
            input_size=(112, 112),
        )


def test_a_negative_drop_is_refused(nano_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_drop -5"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", max_drop=-5)


def test_eval_data_needs_labels(nano_onnx: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 112, 112), np.float32))
    with pytest.raises(InputError, match="--eval-data needs labels"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", eval_data=tmp_path / "images.npy")


def test_a_recipe_without_int8(nano_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision fp16 quantizes nothing"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", recipe="default")


def test_int8_attention_is_for_int8(nano_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--quantize-attention with precision bf16.*give --precision int8"):
        build(nano_onnx, output=tmp_path / "bundle", target="rtx-40", precision="bf16", quantize_attention=True)
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin", quantize_attention=False)
    assert result.manifest.precision == "fp16"


@pytest.mark.slow
@pytest.mark.parametrize("fuse_lepe", [False, True])
def test_int8_attention_is_built_and_its_cost_told(
    nano_onnx: Path, tmp_path: Path, fuse_lepe: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (8, 112, 112, 3), dtype=np.uint8))
    # Random weights and images: what is asked here is that it is measured, not that it is good.
    options: dict[str, Any] = {"precision": "int8", "data": tmp_path / "images.npy", "max_drop": 100.0}
    result = build(
        nano_onnx,
        output=tmp_path / "bundle",
        target="rtx-40",
        batch="1:2:4",
        fuse_lepe=fuse_lepe,
        quantize_attention=True,
        compare_plugin=False,
        **options,
    )
    manifest = open_bundle(result.path)
    quantize, parity, engine = (manifest.stage(name) for name in ("quantize", "parity", "engine"))
    assert quantize is not None
    assert parity is not None
    assert engine is not None
    assert "attention of 4 blocks INT8" in (quantize.note or "")
    assert isinstance(quantize.details, QuantizeDetails)
    assert quantize.details.attention == "int8"
    attention = [layer for layer in quantize.details.layers if layer.op == "BiLevelRoutingAttention"]
    assert [layer.int8 for layer in attention] == [True] * 4
    report = engine_report(result)
    assert report.op_nodes == report.plugin.in_network == 4
    typed = load_model(result.path / "typed.onnx")
    nodes = [Attributes.from_node(node) for node in typed.graph.node if is_op(node)]
    assert [node.output_type for node in nodes] == [onnx.TensorProto.FLOAT16] * 4
    ranges = json.loads((result.path / "calibration.json").read_text())["ranges"]
    parts = [value for name, value in ranges.items() if "[..., " in name]
    scales = [scale for node in nodes for scale in (node.q_scale, node.k_scale, node.v_scale) if scale is not None]
    assert sorted(scales) == sorted(representable_scale(np.array(parts) / 127))
    assert isinstance(parity.details, ParityDetails)
    forms = {form.name: form for form in parity.details.report.forms}
    assert list(forms) == ["exported", "fused", "fp16", FLOAT_ATTENTION, "typed"]
    assert forms[FLOAT_ATTENTION].status == "not judged"
    summary = Console(width=200)
    print_summary(summary, result.path, manifest)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("attention"))
    snr, routing = [], []
    for name in ("typed", FLOAT_ATTENTION):
        found = forms[name].routing_first
        assert found is not None
        routing.append(100 * found.agreement)
        snr.append((forms[name].first or {})["logits"].snr_db)
    assert line == (
        f"attention   INT8: {snr[0]:.1f} dB, {routing[0]:.2f} % of routing sets; "
        f"in FP16: {snr[1]:.1f} dB, {routing[1]:.2f} %"
    )


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
