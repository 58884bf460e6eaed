from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeformer.cli.sensitivity import command
from edgeformer.graph.onnx_files import save_model
from tests.graph.precision_graphs import transformer
from tests.raising import raises


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a fused model and images for it."""
    save_model(transformer(), tmp_path / "fused.onnx")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(6, 3, 16, 16)).astype(np.float32))
    return tmp_path


def called(folder: Path, *more: str, data: str = "images.npy", model: str = "fused.onnx") -> Any:
    words = [str(folder / model), "--data", str(folder / data), *more]
    return CliRunner().invoke(command, words, catch_exceptions=False)


def test_the_table_ranks_layers(files: Path) -> None:
    result = called(files, "--images", "4")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines if "node_" in line]
    assert {row[0] for row in rows} == {
        *("node_stem", "node_qkv_matmul", "node_wo_matmul", "node_fc1_matmul", "node_fc2_matmul", "node_downsample")
    }
    worse = [min(float(row[2]), float(row[4])) for row in rows]
    assert worse == sorted(worse)
    (stem,) = (line for line in lines if "node_stem" in line)
    assert "0.014 M" in stem
    assert "12.5 %" in stem
    assert "6 layers" in lines[-1]
    assert "4 images" in lines[-1]


def test_json_csv_and_plot_say_the_same(files: Path) -> None:
    state, plot, table = (str(files / name) for name in ("state.json", "plot.svg", "table.csv"))
    result = called(files, "--json", "--resume", state, "--plot", plot, "--csv", table, "--no-degrade")
    document = json.loads(result.stdout)
    rows = list(csv.DictReader(io.StringIO(Path(table).read_text(encoding="utf-8"))))
    assert [row["output"] for row in rows] == [layer["output"] for layer in document["layers"]]
    assert [float(row["snr_db"]) for row in rows] == [layer["snr_db"] for layer in document["layers"]]
    assert all(layer["snr_degraded_db"] is None for layer in document["layers"])
    text = Path(plot).read_text(encoding="utf-8")
    assert all(layer["node"] in text for layer in document["layers"])
    assert json.loads(called(files, "--json", "--resume", state, "--no-degrade").stdout) == document


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--resume", "fused.onnx"], "model"),
        (["--plot", "images.npy"], "data"),
        (["--csv", "mine.json", "--recipe", "mine.json"], "recipe"),
        (["--csv", "same.svg", "--plot", "same.svg"], "same.svg"),
    ],
)
def test_an_output_is_no_input_and_no_other_output(files: Path, words: list[str], named: str) -> None:
    (files / "mine.json").write_text(json.dumps({"name": "mine"}))
    given = [word if word.startswith("--") else str(files / word) for word in words]
    with raises("EF131", named):
        called(files, *given)


def test_a_plot_that_cannot_be_drawn_is_told_before_anything_is_measured(files: Path) -> None:
    with raises("EF101", "plot.pdf", ".svg", ".png"):
        called(files, "--plot", str(files / "plot.pdf"), "--resume", str(files / "state.json"))
    assert not (files / "state.json").exists()


def test_data_is_needed(files: Path) -> None:
    with raises("EF103", "--data"):
        CliRunner().invoke(command, [str(files / "fused.onnx")], catch_exceptions=False)


def test_a_recipe_with_an_unknown_key(files: Path) -> None:
    (files / "mine.json").write_text(json.dumps({"name": "mine", "obsever": {}}))
    with raises("EF503", "obsever"):
        called(files, "--recipe", str(files / "mine.json"))


def test_arrays_that_do_not_fit_or_hold_no_numbers(files: Path) -> None:
    np.save(files / "small.npy", np.zeros((6, 3, 12, 16), np.float32))
    np.save(files / "nan.npy", np.full((6, 3, 16, 16), np.nan, np.float32))
    with raises("EF410", "[3, 12, 16]"):
        called(files, data="small.npy")
    with raises("EF411", "sample 0"):
        called(files, data="nan.npy")


@pytest.mark.parametrize(("words", "code"), [(["--workers", "0"], "EF101"), (["--images", "0"], "EF101")])
def test_numbers_out_of_range(files: Path, words: list[str], code: str) -> None:
    with raises(code, "0", "at least 1"):
        called(files, *words)


def test_workers_without_dask(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with raises("EF601", "edgeformer[distributed]"):
        called(files, "--workers", "2")


def test_an_interruption_says_what_is_kept(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeformer.quantization import layer_sensitivity

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(layer_sensitivity._Meter, "noise", interrupted)
    result = called(files, "--resume", str(files / "state.json"))
    assert result.exit_code != 0
    assert f"{files / 'state.json'} keeps what was measured" in result.stderr
