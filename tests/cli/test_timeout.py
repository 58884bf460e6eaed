"""Graphs that never end: every command that runs a model stops with a message that names stage, limit and option."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeformer.pipeline import export_model
from tests.endless import behind_endless_loop, endless_functions, endless_loop


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeformer", *words], capture_output=True, text=True, cwd=cwd)


FUSE = ("fuse", "-o", "out.onnx")
QUANTIZE = ("quantize", "--data", "images.npy", "-o", "out.onnx")
BUILD = ("build", "--target", "rtx-30", "-o", "out")


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("nano") / "nano.onnx"
    return export_model("biformer_nano", output=path, random_weights=True, overrides={"depths": (1, 1, 1, 1)}).model


@pytest.mark.parametrize(
    ("make", "words", "stage", "step"),
    [
        (behind_endless_loop, FUSE, "stage fuse", "a run of"),
        (behind_endless_loop, BUILD, "stage fuse", "a run of"),
        (lambda _: endless_loop(), BUILD, "stage fuse", "a run of"),
    ],
)
def test_a_graph_that_never_ends_is_stopped(
    tmp_path: Path,
    nano: onnx.ModelProto,
    make: Callable[[onnx.ModelProto], onnx.ModelProto],
    words: tuple[str, ...],
    stage: str,
    step: str,
) -> None:
    onnx.save_model(make(nano), tmp_path / "model.onnx")
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 32, 32), np.float32))
    result = run(words[0], "model.onnx", *words[1:], "--timeout", "6", cwd=tmp_path)
    assert result.returncode == 4, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "EF881" in line]
    for value in (stage, step, "6 s", "--timeout"):
        assert value in line
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "model.onnx"]


@pytest.mark.parametrize("words", [FUSE, QUANTIZE, BUILD], ids=lambda words: words[0])
def test_functions_that_double_at_each_level_are_counted_first(tmp_path: Path, words: tuple[str, ...]) -> None:
    onnx.save_model(endless_functions(), tmp_path / "model.onnx")
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 32, 32), np.float32))
    result = run(words[0], "model.onnx", *words[1:], cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "EF344" in result.stderr


@pytest.mark.parametrize("command", ["build", "export", "fuse", "quantize", "verify"])
def test_every_command_that_runs_a_model_takes_a_limit(tmp_path: Path, command: str) -> None:
    result = run(command, "--timeout", "0", cwd=tmp_path)
    assert result.returncode == 2
    assert "EF101: a time limit of 0.0 s" in result.stderr
