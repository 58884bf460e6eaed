from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto

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


def test_the_front_is_shown(files: Path) -> None:
    result = CliRunner().invoke(command, words(files), catch_exceptions=False)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    (head,) = (number for number, line in enumerate(lines) if line.startswith("in float, from the top"))
    assert lines[head + 2].split()[0] == "none"
    (last,) = (line for line in lines if line.startswith("with weights and biases chosen"))
    assert last.count("dB") == 2
    assert "%" in last


@pytest.mark.parametrize(
    ("more", "code", "words_of_it"),
    [
        (["--target-snr", "0"], "EF101", ("target_snr 0", "above 0")),
        (["--target-snr", "30", "--precision", "fp8"], "EF104", ("--target-snr", "fp8")),
        (["--no-degrade", "--precision", "fp8"], "EF104", ("--degrade", "fp8")),
    ],
)
def test_options_without_use_are_refused(files: Path, more: list[str], code: str, words_of_it: tuple[str, ...]) -> None:
    with raises(code, *words_of_it):
        CliRunner().invoke(command, words(files, *more), catch_exceptions=False)


def test_a_target_and_no_degraded_images(files: Path) -> None:
    more = ["--target-snr", "10", "--no-degrade", "--json"]
    result = CliRunner().invoke(command, words(files, *more), catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert printed["met"] is True
    assert printed["snr"]["degraded"] is None
    assert printed["snr"]["clean"] > 10
    assert printed["returned"] == []


def test_bfloat16_gets_scales_that_it_holds(files: Path) -> None:
    result = CliRunner().invoke(command, words(files, "--float-type", "bfloat16"), catch_exceptions=False)
    assert result.exit_code == 0


def test_a_model_without_the_op_is_refused(files: Path) -> None:
    b = Builder(("batch", 3, 16, 16))
    b.op("Relu", b.conv("input", 3, 8, 3, "stem"), output="y")
    save_model(b.model("y"), files / "plain.onnx")
    with raises("EF504", "quantize_attention", "edgeformer fuse"):
        CliRunner().invoke(command, words(files, "--quantize-attention", model="plain.onnx"), catch_exceptions=False)
    assert not (files / "int8.onnx").exists()


@pytest.mark.parametrize(
    ("precision", "more", "kinds"),
    [
        ("int8-weights", [], {"INT8"}),
        ("int4-weights", ["--int4-block", "64"], {"INT4"}),
        ("fp8", ["--data"], {"FLOAT8E4M3FN"}),
    ],
)
def test_other_precisions(files: Path, precision: str, more: list[str], kinds: set[str]) -> None:
    more = [*more, str(files / "images.npy")] if "--data" in more else more
    output = files / "typed.onnx"
    options = [str(files / "fused.onnx"), "-o", str(output), "--precision", precision, "--json", *more]
    result = CliRunner().invoke(command, options, catch_exceptions=False)
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["precision"] == precision
    assert sum(layer["type"] == precision for layer in printed["layers"]) == 4
    assert not any(layer["int8"] for layer in printed["layers"])
    model = load_model(output)
    made = {node.output[0]: node for node in model.graph.node}
    stored = {t.name: TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in made]
    found = {stored[made[n.input[1]].input[0]] for n in layers if made[n.input[1]].op_type == "DequantizeLinear"}
    assert found == kinds


def test_a_table_names_what_layers_became(files: Path) -> None:
    options = [str(files / "fused.onnx"), "-o", str(files / "typed.onnx"), "--precision", "int8-weights"]
    result = CliRunner().invoke(command, options, catch_exceptions=False)
    assert result.exit_code == 0
    assert sum("INT8-WEIGHTS" in line for line in result.stdout.splitlines()) == 4
    assert "no calibration needed" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        (["--precision", "int8-weights", "--data", "images.npy"], "EF104", ["--data", "int8-weights"]),
        (["--precision", "int4-weights", "--calibration", "c.json"], "EF104", ["--calibration", "int4-weights"]),
        (["--precision", "fp8"], "EF103", ["FP8", "--data"]),
        (["--precision", "int8-weights", "--float-type", "bfloat16"], "EF548", ["int8-weights", "float16"]),
        (["--precision", "int8-weights", "--quantize-attention"], "EF104", ["--quantize-attention"]),
        (["--precision", "int8-weights", "--int4-block", "32"], "EF104", ["--int4-block"]),
        (["--precision", "int4-weights", "--int4-block", "5"], "EF101", ["int4_block 5", "32, 64, 128"]),
    ],
)
def test_options_that_have_no_use_are_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: str, values: list[str]
) -> None:
    monkeypatch.chdir(files)
    with raises(code, *values):
        CliRunner().invoke(command, ["fused.onnx", "-o", "typed.onnx", *options], catch_exceptions=False)
    assert not (files / "typed.onnx").exists()
