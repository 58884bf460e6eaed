"""The README's section for C++ programs and docs/runtime_cpp.md: the files that they show, and every command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer.pipeline import BuildResult
from tests.runtime_cpp.programs import LABELS
from tests.test_readme import CPP_SECTION, README

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runtime_cpp.md").read_text()
# What builds the library that this test takes.
BUILD = "cmake --preset default && cmake --build --preset default --target edgeformer_library"

pytestmark = [pytest.mark.slow, pytest.mark.whole]


def section() -> str:
    found = CPP_SECTION.search(README)
    assert found is not None
    return found[0]


def commands(text: str) -> list[str]:
    return re.findall(r"^\$ (.+)$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(runtime_library: Path, bundle: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after ./scripts/demo, as far as the commands look at it, with the files that the README shows."""
    path = tmp_path_factory.mktemp("guide")
    for name in ("calibration", "examples"):
        (path / name).symlink_to(ROOT / name)
    (path / "build").mkdir()
    (path / "build" / "default").symlink_to(runtime_library.parent)
    (path / "build" / "demo").symlink_to(bundle.path)
    shown = re.findall(r"^`(application/[\w.]+)`:\n\n```\w+\n(.+?)^```", section(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in shown] == ["application/CMakeLists.txt", "application/classify.cpp"]
    (path / "application").mkdir()
    for name, content in shown:
        (path / name).write_text(content)
    return path


def test_every_command_runs(folder: Path) -> None:
    lines = commands(section()) + commands(PAGE)
    assert len(lines) >= 15
    assert lines[0] == BUILD
    # One shell: some commands set variables for those behind them.
    script = "\n".join(f"echo '@ {number}'\n{line}" for number, line in enumerate(lines) if line != BUILD)
    names = ("EDGEFORMER_ONNXRUNTIME_LIBRARY", "PKG_CONFIG_PATH", "LD_LIBRARY_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["HOME"] = str(folder / "home")
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    outputs = dict(zip(lines[1:], re.split(r"^@ \d+\n", result.stdout, flags=re.MULTILINE)[1:], strict=True))
    (classified,) = (outputs[line] for line in lines if line.startswith("application/build/classify"))
    ranked = re.findall(r"^(0\.\d{4}) (.+)$", classified, re.MULTILINE)
    assert len(ranked) == 3
    assert {label for _, label in ranked} <= set(LABELS)
    assert outputs["./classify build/demo seven.ppm"] == classified
    assert outputs["./embed build/demo"].startswith("biformer_nano, fp16, ONNX Runtime ")
    (ran,) = (output for line, output in outputs.items() if line.endswith("--top 3 seven.ppm"))
    assert re.findall(r"^  (0\.\d{4})  (.+)$", ran, re.MULTILINE) == ranked
