"""``edgeformer fuse``: what it says of blocks that stay, and what ``--require-plugin`` makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from edgeformer.cli.fuse import command
from edgeformer.graph.onnx_files import load_model
from edgeformer.ops.bi_level_routing_attention import is_op
from tests.graph.blocks import Block, torchscript
from tests.raising import raises


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Three files: a block that fuses, one that does not, and a model that has none."""
    torch.manual_seed(0)
    image = torch.randn(2, 8, 8, 16)
    for name, module in (("good", Block()), ("other", Block(attend="mask")), ("none", torch.nn.Linear(16, 4))):
        onnx.save(torchscript(module, image), tmp_path / f"{name}.onnx")
    return tmp_path


def words(folder: Path, name: str, *more: str) -> list[str]:
    return [str(folder / f"{name}.onnx"), "-o", str(folder / "out.onnx"), *more]


def warned(result: Result) -> str:
    """Standard error without its line breaks."""
    return " ".join(result.stderr.split())


def test_a_block_that_stays_is_warned_of(saved: Path) -> None:
    result = CliRunner().invoke(command, words(saved, "other", "--json"), catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["left"] == 1
    assert "warning: routing attention at /TopK was not fused: " in warned(result)
    assert "Add (/Add" in warned(result)


def test_no_block_at_all_is_one_plain_line(saved: Path) -> None:
    result = CliRunner().invoke(command, words(saved, "none"), catch_exceptions=False)
    assert result.exit_code == 0
    assert warned(result).count("warning:") == 1
    assert "warning: nothing in this graph looks like bi-level routing attention" in warned(result)


@pytest.mark.parametrize(("name", "words_of"), [("other", ["1 blocks", "/TopK", "Add"]), ("none", ["0 op nodes"])])
def test_require_plugin_fails_and_writes_nothing(saved: Path, name: str, words_of: list[str]) -> None:
    with raises("EF352", *words_of):
        CliRunner().invoke(command, words(saved, name, "--require-plugin"), catch_exceptions=False)
    assert not (saved / "out.onnx").exists()


def test_require_plugin_passes_where_all_is_fused(saved: Path) -> None:
    result = CliRunner().invoke(command, words(saved, "good", "--require-plugin"), catch_exceptions=False)
    (saved / "out.onnx").rename(saved / "fused.onnx")
    # A graph that is fused already is as good.
    again = CliRunner().invoke(command, words(saved, "fused", "--require-plugin"), catch_exceptions=False)
    assert (result.exit_code, again.exit_code) == (0, 0)
    assert sum(is_op(node) for node in load_model(saved / "out.onnx").graph.node) == 1
    assert "WARNING" not in warned(result) + warned(again)
