"""Every command and every Python block of the README runs, in the README's order, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Run by tests/runtime_cpp/test_guide.py, with what it builds.
CPP_SECTION = re.compile(r"^## In a C\+\+ application\n.+?(?=^## )", re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ (.+)$", CPP_SECTION.sub("", README), re.MULTILINE)
PYTHON = re.findall(r"^```python\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
# These two are what runs this test, or what would set up the environment it runs in.
SCRIPTS = ["./scripts/demo", "./scripts/test"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's data, so that commands find their inputs and leave the checkout alone."""
    path = tmp_path_factory.mktemp("readme")
    for name in ("checkpoints", "calibration"):
        (path / name).symlink_to(ROOT / name)
    return path


def test_the_readme_has_commands() -> None:
    assert COMMANDS[:2] == SCRIPTS
    assert len(COMMANDS) >= 10
    assert len(PYTHON) == 2
    assert "@@" not in README, "a placeholder was left"


def test_the_two_scripts_are_there_and_sound() -> None:
    for script in [*SCRIPTS, "./scripts/setup", "./.ci/run"]:
        assert os.access(ROOT / script, os.X_OK)
        subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.slow
def test_the_demo_runs_in_the_environment_that_is_set_up(tmp_path: Path) -> None:
    if not (ROOT / ".venv" / ".edgeformer-setup").exists():
        pytest.skip("scripts/setup did not make this environment")
    output = tmp_path / "demo"
    result = subprocess.run([str(ROOT / "scripts/demo"), "-o", str(output)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.search(r"top-1 accuracy INT8 +\d+(\.\d+)? %", result.stdout)
    assert "4 plugin layers" in result.stdout
    assert str(output) in result.stdout


@pytest.mark.slow
def test_every_command_runs(folder: Path) -> None:
    for line in COMMANDS:
        if line in SCRIPTS:
            continue
        words = shlex.split(line)
        assert words[0] == "edgeformer", line
        result = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    # The Python blocks work on what the commands made: the first one's build reuses theirs.
    printed = []
    for code in PYTHON:
        result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        printed.append(result.stdout)
    assert "'int8'" in printed[0]
    assert "['fused', 'fused', 'fused', 'fused']" in printed[0]
    assert printed[1].startswith("3 0.8")


def test_every_path_it_names_exists() -> None:
    table = README.split("## Where is X")[1].split("## ")[0]
    paths = [
        path for row in re.findall(r"\| ([^|]+) \|$", table, re.MULTILINE) for path in re.findall(r"`([^`]+)`", row)
    ]
    assert len(paths) >= 12
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert missing == []
