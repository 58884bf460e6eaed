"""Every command refuses an output that is one of its inputs, before it opens any of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgeformer.cli import cli
from edgeformer.data import Preprocessing
from edgeformer.errors import InputError
from edgeformer.pipeline import build, export_model
from edgeformer.pipeline.conflicts import check_inputs_stay
from tests.raising import raises

QUANTIZE = "quantize model.onnx --data images --recipe recipe.json --preprocessing size.json --calibration new.json"
EXPORT = "export biformer_nano --checkpoint weights.pth"
BUILD = "build model.onnx --target rtx-40 --eval-data images --labels names.txt"
NAMED = "build biformer_nano --checkpoint bundle/weights.pth --target rtx-40"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that no command could read: what is refused first is the output."""
    monkeypatch.chdir(tmp_path)
    for name in ("weights.pth", "recipe.json", "names.txt", "images/cat/a.png", "bundle/weights.pth", "other.onnx"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"content of {name}")
    Path("size.json").write_text(json.dumps(Preprocessing(32, 32).to_dict()))
    weight = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    os.mkdir("weights")
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights/model.bin", size_threshold=0)
    os.link("model.onnx", "hard.onnx")
    Path("soft.onnx").symlink_to("model.onnx")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("words", "output", "named"),
    [
        (EXPORT, "weights.pth", "checkpoint"),
        (f"{EXPORT} --preprocessing size.json", "size.json", "preprocessing"),
        ("fuse model.onnx", "model.onnx", "model"),
        ("fuse model.onnx", "hard.onnx", "model"),
        ("fuse model.onnx", "soft.onnx", "model"),
        ("fuse soft.onnx", "model.onnx", "model"),
        ("fuse model.onnx", "weights/model.bin", "weights"),
        (QUANTIZE, "model.onnx", "model"),
        (QUANTIZE, "weights/model.bin", "weights"),
        (QUANTIZE, "recipe.json", "recipe"),
        (QUANTIZE, "size.json", "preprocessing"),
        (QUANTIZE, "new.json", "calibration"),
        (QUANTIZE, "images/cat/a.png", "image"),
        ("quantize model.onnx --data images --calibration model.onnx", "out.onnx", "model"),
        ("quantize model.onnx --data images --recipe recipe.json --calibration recipe.json", "out.onnx", "recipe"),
        (BUILD, ".", "model"),
        (BUILD, "images", "evaluation data"),
        (BUILD, "images/new/bundle", "evaluation data"),
        (BUILD, "weights", "weights"),
        (BUILD.replace("names.txt", "bundle/weights.pth"), "bundle", "labels"),
        (NAMED, "bundle", "checkpoint"),
    ],
)
def test_an_output_that_is_an_input_is_refused(folder: Path, words: str, output: str, named: str) -> None:
    before = contents(folder)
    refused = CliRunner().invoke(cli, [*words.split(), "-o", output], standalone_mode=False).exception
    assert isinstance(refused, InputError), refused
    assert refused.code == "EF131", refused
    assert named in str(refused)
    assert contents(folder) == before


def test_the_functions_refuse_it_as_well(folder: Path) -> None:
    with raises("EF131", "weights.pth", "checkpoint"):
        export_model("biformer_nano", checkpoint="weights.pth", output=folder / "weights.pth")
    with raises("EF131", "images", "data"):
        build("model.onnx", precision="int8", data="images", target="rtx-40", output="images/bundle")


def test_outputs_beside_the_inputs_are_taken(folder: Path) -> None:
    check_inputs_stay("other.onnx", "model.onnx", data="images", recipe="default")
    check_inputs_stay("images/cat/model.onnx", "model.onnx", data="images")
    Path("biformer_nano").mkdir()
    check_inputs_stay("biformer_nano", "biformer_nano", folder=True, checkpoint="weights.pth", data=[np.zeros(3)])
    check_inputs_stay("weights.pth", "other.onnx", data=None)  # no ONNX file in truth: the next step says so
