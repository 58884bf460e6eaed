from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeformer.cli.quantize import command
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op
from tests.graph.precision_graphs import Builder, transformer
from tests.raising import raises


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a fused model and images for it."""
    save_model(transformer(), tmp_path / "fused.onnx")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32))
    return tmp_path


def words(folder: Path, *more: str, model: str = "fused.onnx") -> list[str]:
    data, output = folder / "images.npy", folder / "int8.onnx"
    return [str(folder / model), "--data", str(data), "-o", str(output), *more]


@pytest.mark.parametrize(
    ("more", "quantized"),
    [([], False), (["--quantize-attention"], True), (["--quantize-attention", "--no-quantize-attention"], False)],
)
def test_attention_becomes_int8_where_it_is_asked_for(files: Path, more: list[str], quantized: bool) -> None:
    result = CliRunner().invoke(command, words(files, "--json", *more), catch_exceptions=False)
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    (layer,) = (layer for layer in printed["layers"] if layer["op"] == "BiLevelRoutingAttention")
    assert layer["int8"] == quantized
    assert (printed["attention_snr"] is not None) == quantized
    (node,) = (node for node in load_model(files / "int8.onnx").graph.node if is_op(node))
    assert Attributes.from_node(node).quantized == quantized


def test_the_recipe_decides_where_the_option_is_not_given(files: Path) -> None:
    recipe = files / "mine.json"
    recipe.write_text(json.dumps({"schema_version": 1, "name": "mine", "quantize_attention": True}))
    result = CliRunner().invoke(command, words(files, "--recipe", str(recipe)), catch_exceptions=False)
    assert result.exit_code == 0
    (line,) = (line for line in result.stdout.splitlines() if "BiLevelRoutingAttention" in line)
    assert "INT8" in line


def test_a_model_without_the_op_is_refused(files: Path) -> None:
    b = Builder(("batch", 3, 16, 16))
    b.op("Relu", b.conv("input", 3, 8, 3, "stem"), output="y")
    save_model(b.model("y"), files / "plain.onnx")
    with raises("EF504", "quantize_attention", "edgeformer fuse"):
        CliRunner().invoke(command, words(files, "--quantize-attention", model="plain.onnx"), catch_exceptions=False)
    assert not (files / "int8.onnx").exists()
