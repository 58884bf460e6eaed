"""`.pre-commit-config.yaml`: its hooks are commands that exist, fetch nothing, and find what they are there for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pre_commit.clientlib import load_config

ROOT = Path(__file__).parents[1]
HOOKS: dict[str, dict[str, Any]] = {
    hook["id"]: hook for repo in load_config(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
}


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A hook's command with the programs beside this Python: in the environment of scripts/setup the same ones."""
    program, *options = HOOKS[name]["entry"].split()
    assert Path(program).parent == Path(".venv/bin")
    command = [str(Path(sys.executable).with_name(Path(program).name)), *options, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_nothing_is_fetched() -> None:
    assert {repo["repo"] for repo in load_config(ROOT / ".pre-commit-config.yaml")["repos"]} == {"local"}
    # "system" has another name from pre-commit 4.4 on.
    assert {hook["language"] for hook in HOOKS.values()} <= {"system", "unsupported"}
    assert not any(hook["additional_dependencies"] for hook in HOOKS.values())


@pytest.mark.parametrize(
    ("name", "file", "bad", "good"),
    [
        ("ruff-format", "x.py", "x = 'a'\n", 'x = "a"\n'),
        ("clang-format", "x.cpp", "int  x ;\n", "int x;\n"),
    ],
)
def test_formatters_rewrite(tmp_path: Path, name: str, file: str, bad: str, good: str) -> None:
    path = tmp_path / file
    path.write_text(bad)
    done = run(name, str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_text() == good


def test_the_linter_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("import os\n")
    done = run("ruff-check", str(path))
    assert done.returncode == 1
    assert "F401" in done.stdout


def test_the_smoke_test_is_there() -> None:
    done = run("smoke-test", "--collect-only")
    assert done.returncode == 0, done.stdout
    assert "tests/test_smoke.py" in done.stdout


def test_every_source_in_c_is_formatted() -> None:
    kinds = (".cpp", ".h", ".hpp", ".cu", ".cuh")
    sources = [path for room in ("plugins", "runtime") for path in (ROOT / room).rglob("*") if path.suffix in kinds]
    sources += (ROOT / "examples").rglob("*.c")
    assert len(sources) > 50
    pattern = re.compile(HOOKS["clang-format"]["files"])
    assert all(pattern.search(path.relative_to(ROOT).as_posix()) for path in sources)
