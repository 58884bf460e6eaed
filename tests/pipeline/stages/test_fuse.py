"""The fuse stage."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest
import torch

from edgeformer.bundle.details import FuseDetails
from edgeformer.graph.onnx_files import load_model
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.pipeline import build
from tests.graph.blocks import Block, torchscript
from tests.pipeline.conftest import Recorder, engine_report
from tests.raising import raises


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


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """A model one of whose two blocks is another function."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 4, 4), Rearranged(), Block(), Block(attend="mask"), torch.nn.Linear(16, 4)
    )
    onnx.save(torchscript(model, torch.randn(1, 3, 32, 32)), tmp_path / "masked.onnx")
    return tmp_path / "masked.onnx"


class Rearranged(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


def test_a_block_that_stays_is_warned_of(masked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the stage is taken from the bundle before."""
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "edgeformer"):
            result = build(masked, output=tmp_path / "bundle", target="jetson-agx-orin", use_plugin=False)
        (message,) = (r.getMessage() for r in caplog.records if r.name == "edgeformer.pipeline.stages.fuse")
        assert "was not fused: " in message
        stage = result.manifest.stage("fuse")
        assert stage is not None
        assert str(stage.note).startswith("1 of 2 routing-attention blocks fused; left: ")


def test_required_plugins_that_are_missing_publish_nothing(masked: Path, tmp_path: Path) -> None:
    with raises("EF352", "1 op nodes", "1 blocks"):
        build(masked, output=tmp_path / "bundle", target="jetson-agx-orin", require_plugin=True)
    assert not (tmp_path / "bundle").exists()
    with raises("EF104", "--require-plugin", "--no-plugin"):
        build(masked, output=tmp_path / "bundle", target="rtx-30", require_plugin=True, use_plugin=False)
