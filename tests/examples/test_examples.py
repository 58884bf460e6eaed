"""Every example runs as its page says, on the shipped checkpoint and a handful of its images."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edgeformer.bundle import open_bundle
from edgeformer.data import open_samples
from edgeformer.graph.fuse import fuse
from edgeformer.graph.onnx_files import load_model
from edgeformer.models import model_info
from edgeformer.quantization import load_recipe, quantize

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "__init__.py")
DIGITS = ROOT / "calibration" / "digits"
RECIPE = EXAMPLES / "own_recipe" / "recipe.json"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)


def few_images(name: str, per_class: int, folder: Path) -> Path:
    """``per_class`` of the shipped images of each digit."""
    for digit in (DIGITS / name).iterdir():
        (folder / name / digit.name).mkdir(parents=True)
        for image in sorted(digit.iterdir())[:per_class]:
            (folder / name / digit.name / image.name).symlink_to(image)
    return folder / name


@pytest.fixture(scope="module")
def foreign_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The bundle that the ONNX example makes of its own file, and what it printed."""
    bundle = tmp_path_factory.mktemp("onnx") / "bundle"
    result = run(EXAMPLES / "build_from_onnx.py", "--target", "jetson-agx-orin", "-o", bundle)
    assert result.returncode == 0, result.stderr
    return bundle, result.stdout


def test_the_page_lists_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", page))
    assert {path.split("/")[0] for path in linked} == {
        path.name for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__init__.py", "__pycache__")
    }
    assert [path for path in linked if not (EXAMPLES / path).exists()] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help(script: str) -> None:
    result = run(EXAMPLES / script, "--help")
    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout
    assert "--output" in result.stdout


def test_a_checkpoint_becomes_a_bundle(tmp_path: Path) -> None:
    result = run(
        EXAMPLES / "build_from_checkpoint.py",
        *("--data", few_images("calibrate", 2, tmp_path)),
        *("--eval-data", few_images("evaluate", 3, tmp_path)),
        *("--target", "jetson-agx-orin"),
        *("--output", tmp_path / "bundle"),
    )
    assert result.returncode == 0, result.stderr
    manifest = open_bundle(tmp_path / "bundle")
    assert (manifest.precision, manifest.batch) == ("int8", [1, 8, 32])
    found = re.findall(r"^top-1 accuracy (\w+): ([\d.]+) % of 30 images$", result.stdout, re.MULTILINE)
    assert found == [(name, f"{score.value:.2f}") for name, score in manifest.accuracy.items()]
    assert [name for name, _ in found] == ["fp32", "fp16", "int8"]
    assert f"'edgeformer inspect {tmp_path / 'bundle'}'" in result.stdout


def test_a_checkpoint_that_is_not_there_ends_in_one_sentence(tmp_path: Path) -> None:
    result = run(EXAMPLES / "build_from_checkpoint.py", "--checkpoint", tmp_path / "no.pth", "-o", tmp_path / "bundle")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert re.match(r"EF\d{3}: ", sentence)
    assert str(tmp_path / "no.pth") in sentence


def test_a_foreign_graph_is_fused_and_built(foreign_build: tuple[Path, str]) -> None:
    bundle, printed = foreign_build
    assert len(re.findall(r"^block \d: fused, error ", printed, re.MULTILINE)) == 4
    assert re.search(r"^parity: passed, ", printed, re.MULTILINE)
    manifest = open_bundle(bundle)
    assert (manifest.model.source, manifest.precision) == ("onnx", "fp16")
    written = onnx.load(bundle.with_suffix(".onnx"))
    assert written.producer_name == "pytorch"
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_a_recipe_of_ones_own_decides(foreign_build: tuple[Path, str]) -> None:
    fused = fuse(load_model(foreign_build[0].with_suffix(".onnx"))).model
    images = open_samples(DIGITS / "calibrate", model_info("biformer_nano").preprocessing, limit=8)
    by_default, own = (
        {layer.node: layer.quantized for layer in quantize(fused, images, recipe=recipe).decisions}
        for recipe in (load_recipe().model_copy(update={"min_int8_share": 1.0}), load_recipe(RECIPE))
    )
    assert {node for node in own if own[node] != by_default[node]} == {
        node.name for node in fused.graph.node if node.op_type == "Conv" and "downsample_layers.0." in node.input[1]
    }


def test_the_recipes_page_names_what_differs() -> None:
    table = (EXAMPLES / "own_recipe" / "README.md").read_text()
    own, default = load_recipe(RECIPE).model_dump(), load_recipe().model_dump()
    differing = {name for name in own if name != "name" and own[name] != default[name]}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == differing
    assert set(json.loads(RECIPE.read_text())) <= set(own)


@pytest.mark.slow
def test_the_recipes_page_commands_run(tmp_path: Path) -> None:
    for name in ("checkpoints", "calibration", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = re.findall(r"^\$ edgeformer (.+)$", (EXAMPLES / "own_recipe" / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        result = subprocess.run(
            [sys.executable, "-m", "edgeformer", *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert re.search(r"^top-1 .*INT8 +\d+(\.\d+)? %", result.stdout, re.MULTILINE)
