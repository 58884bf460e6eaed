"""The fuse stage."""

from __future__ import annotations

from pathlib import Path

from edgeformer.bundle.details import FuseDetails
from edgeformer.graph.onnx_files import load_model
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.pipeline import build
from tests.pipeline.conftest import (
    Recorder,
    engine_report,
)


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
