"""Exit codes, error output and the JSON form of errors, for people and for machines."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgeformer
from edgeformer.cli import COMMANDS

ROOT = Path(__file__).parents[2]


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeformer", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120"},
    )


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"edgeformer, version {edgeformer.__version__}\n"
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert declared[1] == edgeformer.__version__


def test_help_names_every_command_and_nothing_else() -> None:
    shown = run("--help").stdout
    listed = re.findall(r"^  (\w+)  ", shown.split("Commands:")[1], re.MULTILINE)
    assert tuple(listed) == COMMANDS
    files = {path.stem for path in (ROOT / "edgeformer" / "cli").glob("*.py") if not path.stem.startswith("_")}
    assert files == set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["build", "biformer_nano", "-o", "out"], "Missing option '--target'"),
        (
            ["build", "biformer_nano", "--target", "rtx-40", "-o", "out"],
            "biformer_nano needs its weights: give --checkpoint",
        ),
        (["build", "biformer_nana", "--target", "rtx-40", "-o", "out"], "no model is called 'biformer_nana'"),
        (
            ["build", "biformer_nano", "--random-weights", "--target", "rtx-4o", "-o", "out"],
            "unknown target 'rtx-4o': did you mean rtx-40",
        ),
        (
            ["build", "biformer_nano", "--random-weights", "--target", "rtx-40", "--precision", "int8", "-o", "out"],
            "INT8 needs calibration images: give --data",
        ),
        (
            ["build", "biformer_nano", "--random-weights", "--target", "rtx-40", "--batch", "8:4:2", "-o", "out"],
            "batch 8:4:2",
        ),
        (
            ["build", "biformer_nano", "--random-weights", "--target", "rtx-40", "--input-size", "100", "-o", "out"],
            "100",
        ),
        (
            ["build", "biformer_nano", "--random-weights", "--target", "rtx-40", "--input-size", "0x3", "-o", "out"],
            "'0x3' is not a size",
        ),
        (
            ["build", "biformer_nano", "--random-weights", "--set", "num_classes", "--target", "rtx-40", "-o", "out"],
            "'num_classes' is not NAME=VALUE",
        ),
        (
            ["build", "biformer_nano", "--random-weights", "--set", "colour=1", "--target", "rtx-40", "-o", "out"],
            "no such override: colour",
        ),
        (["build", "missing.onnx", "--target", "rtx-40", "-o", "out"], "missing.onnx"),
        (["build", "missing.onnx", "--checkpoint", "x", "--target", "rtx-40", "-o", "out"], "'x' does not exist"),
        (
            ["build", "a.onnx", "--random-weights", "--target", "rtx-40", "-o", "out"],
            "brings its own weights and structure: leave out random weights",
        ),
        (["fuse", "missing.onnx", "-o", "out.onnx"], "missing.onnx"),
        (["fuse", "missing.onnx", "-o", "."], ".: cannot be written: is a folder"),
        (["export", "biformer_nano", "--random-weights", "-o", "."], ".: cannot be written: is a folder"),
        (["export", "biformer_nano", "--random-weights", "--opset", "17", "-o", "a.onnx"], "at least 18 is needed"),
        (["export", "biformer_nano", "--random-weights", "--opset", "99", "-o", "a.onnx"], "knows none newer than"),
        (["inspect", __file__], "no bundle, no .onnx file, and no engine that is known"),
        (["verify", "missing"], "missing: no such bundle"),
        (["inspect", "missing.onnx"], "missing.onnx"),
        (["inspect", "missing.engine"], "missing.engine"),
        (["export", "a.onnx", "-o", "b.onnx"], "a.onnx"),
        (["quantize", "missing.onnx", "-o", "out.onnx"], "--data"),
        (
            ["build", "biformer_nano", "--random-weights", "--target", "rtx-40", "--quantize-attention", "-o", "out"],
            "--quantize-attention with precision fp16, which leaves attention in float: give --precision int8",
        ),
    ],
)
def test_bad_input_exits_with_2_and_says_why(tmp_path: Path, words: list[str], message: str) -> None:
    result = run(*words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    # Rich wraps nothing here, Click wraps at the terminal's width.
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("export", "biformer_nano", "--random-weights", "-o", "file/a.onnx", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "error EF102: " in result.stderr


def test_a_full_disk_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeformer import cli

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "bundle/typed.onnx")

    monkeypatch.setattr(cli.cli, "main", full)
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 4
    assert capsys.readouterr().err == "error EF602: bundle/typed.onnx: No space left on device\n"


def test_errors_in_json(tmp_path: Path) -> None:
    result = run("verify", "missing", "--json", cwd=tmp_path)
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "InputError"
    assert error["message"].startswith("missing: no such bundle")
    usage = run("build", "--json")
    assert usage.returncode == 2
    assert json.loads(usage.stdout)["error"]["kind"] == "UsageError"


def test_missing_environment_exits_with_4(tmp_path: Path) -> None:
    words = ["build", "biformer_nano", "--random-weights", "--target", "local", "-o", "out"]
    if "ok" in [fact["status"] for fact in json.loads(run("doctor", "--json").stdout) if fact["name"] == "gpu"]:
        pytest.skip("this machine has a GPU: 'local' is a target here")
    result = run(*words, cwd=tmp_path)
    assert result.returncode == 4
    assert "target 'local' needs a GPU in this machine" in result.stderr
