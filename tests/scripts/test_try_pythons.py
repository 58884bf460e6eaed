"""scripts/try_pythons: which Pythons it tries, and what it says of each. The Pythons here are shell scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cp", "dirname", "mkdir", "mktemp", "rm", "sed", "tail")
# Makes "environments" that hold the script itself; fails where it is told to, and is of one version alone.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *{fails}*) echo "broken: $*"; exit 1 ;;
  *"!= '{version}'"*) exit 0 ;;
  *sys.version_info*) exit 1 ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/edgeformer" ;;
  *) echo "ran $*" ;;
esac
"""


def install(path: Path, version: str, fails: str = "nothing of this kind") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.replace("{version}", version).replace("{fails}", f'"{fails}"'))
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with what the script reads, PATH and home of its own, and a .venv of Python 3.11."""
    for name in ("scripts/try_pythons", "scripts/locked.sh", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho 3.11\n")
    own.chmod(0o755)
    return tmp_path


def tried(project: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the script."""
    scratch = project / "scratch"
    scratch.mkdir()
    process = subprocess.run(
        [project / "scripts" / "try_pythons"],
        env={"PATH": str(project / "bin"), "HOME": str(project / "home"), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert os.listdir(scratch) == [], "the environments are thrown away"
    return process.returncode, process.stdout.splitlines()


def test_a_python_that_is_not_here_is_not_tried(project: Path) -> None:
    code, lines = tried(project)
    assert lines == [
        "Python 3.10: not tried: this machine has none",
        "Python 3.11: the one of .venv",
        "Python 3.12: not tried: this machine has none",
        "Python 3.13: not tried: this machine has none",
    ]
    assert code == 0


def test_pythons_of_the_path_and_of_pyenv_are_tried(project: Path) -> None:
    install(project / "bin" / "python3.10", "3.10")
    # pyenv puts a python3.13 into PATH that refuses to run where another version is chosen.
    install(project / "bin" / "python3.13", "none")
    install(project / "home" / ".pyenv" / "versions" / "3.13.0" / "bin" / "python", "3.13")
    code, lines = tried(project)
    assert code == 0
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "passed",
        "the one of .venv",
        "not tried",
        "passed",
    ]
    log = (project / "build" / "python3.13.log").read_text()
    for part in ("--require-hashes --requirement scripts/lock/core.txt", "pip check", "doctor", "--require-plugin"):
        assert part in log
    assert lines[3].startswith("Python 3.13: passed: ")
    assert "-m pytest --quick" in lines[3]


@pytest.mark.parametrize(
    "step",
    [
        "-m venv",
        "scripts/lock/build.txt",
        "scripts/lock/core.txt",
        "pip check",
        "targets",
        "reference_graph",
        "--require-plugin",
        "pytest",
    ],
)
def test_a_step_that_fails_is_told_and_the_others_are_tried(project: Path, step: str) -> None:
    install(project / "bin" / "python3.10", "3.10", fails=step)
    install(project / "bin" / "python3.12", "3.12")
    code, lines = tried(project)
    assert code == 1
    assert lines[0] == "Python 3.10: FAILED; the end of build/python3.10.log:"
    (position,) = [index for index, line in enumerate(lines) if line.startswith("broken: ")]
    assert step in lines[position]
    assert lines[position + 1] == "Python 3.11: the one of .venv"
    assert lines[position + 2].startswith("Python 3.12: passed: ")
