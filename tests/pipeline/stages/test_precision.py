"""The typed graph: types, the form that the target's TensorRT makes most of, INT8 with attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from rich.console import Console

from edgeformer.bundle import open_bundle
from edgeformer.bundle.details import ParityDetails, QuantizeDetails
from edgeformer.bundle.figures import percent
from edgeformer.cli._summary import print_summary
from edgeformer.graph.onnx_files import load_model
from edgeformer.graph.qdq import representable_scale
from edgeformer.inference import load
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op
from edgeformer.pipeline import BuildResult, build
from edgeformer.records.terms import Precision
from edgeformer.records.verification import FLOAT_ATTENTION
from edgeformer.report.content import block_rows
from tests.pipeline.conftest import (
    Recorder,
    engine_report,
    linears_as_convolutions,
    weight_scale_sizes,
)
from tests.present import present


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


def test_tensorrt_keeps_a_weight_scale_for_each_channel(nano_onnx: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(4, 3, 112, 112)).astype(np.float32)
    steps = ("balance", "choose_ranges", "round_weights", "correct_bias")
    fast = {"observer": {"kind": "min_max"}, **dict.fromkeys(steps, False)}
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
        routing.append(percent(100 * found.agreement))
        snr.append((forms[name].first or {})["logits"].snr_db)
    assert line == (
        f"attention   INT8: {snr[0]:.1f} dB, {routing[0]} of routing sets; in FP16: {snr[1]:.1f} dB, {routing[1]}"
    )


@pytest.mark.parametrize(
    ("precision", "kind", "least"), [("int8-weights", TensorProto.INT8, 35.0), ("int4-weights", TensorProto.INT4, 10.0)]
)
def test_weights_alone_go_through_the_pipeline(
    nano_onnx: Path,
    tmp_path: Path,
    precision: Precision,
    kind: int,
    least: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For a device, whose engine is built there: up to parity, in FP16 with stored weights, and no calibration."""
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin", precision=precision, max_drop=100.0)
    manifest = open_bundle(result.path)
    assert manifest.precision == precision
    assert "calibration.json" not in manifest.files
    quantize = present(manifest.stage("quantize"))
    assert f"20 layers {precision.split('-')[0].upper()} weights, rest FP16" in (quantize.note or "")
    details = present(manifest.details(QuantizeDetails))
    assert details.attention == "float16"
    assert sum(layer.type == precision for layer in details.layers) == 20
    assert not any(layer.int8 for layer in details.layers)
    typed = load_model(result.path / "typed.onnx")
    made = {node.output[0]: node for node in typed.graph.node}
    stored = {tensor.name: tensor for tensor in typed.graph.initializer}
    read = [made[node.input[1]] for node in typed.graph.node if node.op_type == "MatMul" and node.input[1] in made]
    dequantizers = [node for node in read if node.op_type == "DequantizeLinear"]
    assert [stored[node.input[0]].data_type for node in dequantizers] == [kind] * 20
    assert {stored[node.input[1]].data_type for node in dequantizers} == {TensorProto.FLOAT16}
    parity = present(manifest.details(ParityDetails))
    forms = {form.name: form for form in parity.report.forms}
    assert list(forms) == ["exported", "fused", "fp16", "typed"]
    assert present((forms["typed"].first or {})["logits"].snr_db) > least
    assert sum(block.int8_layers for block in parity.blocks) == 20
    words = f"{precision.split('-')[0].upper()} weights"
    assert any(words in row.precision for row in block_rows(manifest))
    capsys.readouterr()
    print_summary(Console(width=200), result.path, manifest)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision")]
    assert f"{precision} on jetson-agx-orin: only shrinks" in lines[0]
    assert "accelerates int8" in lines[1]
    # ONNX Runtime runs the bundle where its engine does not.
    found = load(result.path, graph="typed", trust_bundle=True)
    assert found.describe().precision == precision
    # Again: nothing is made anew; with other blocks the weights are.
    again = Recorder()
    build(nano_onnx, output=result.path, target="jetson-agx-orin", precision=precision, max_drop=100.0, observer=again)
    assert again.ran == []
