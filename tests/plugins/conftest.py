from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_COMMAND = "cmake --preset default && cmake --build --preset default"


def _newest(pattern: str) -> Path | None:
    found = sorted((ROOT / "build").glob(pattern), key=lambda path: path.stat().st_mtime)
    here = [path for path in found if _built_for(path) in (None, platform.machine())]
    return here[-1] if here else None


def _built_for(path: Path) -> str | None:
    """The processor that a plugin library's metadata names: build/ may hold cross-compiled ones."""
    metadata = path.with_suffix(".json")
    return json.loads(metadata.read_text()).get("cpu") if metadata.exists() else None


def _require(pattern: str) -> Path:
    path = _newest(pattern)
    if path is None:
        pytest.skip(f"build/{pattern} is not built: {BUILD_COMMAND}")
    return path


@pytest.fixture(scope="session")
def plugin_library() -> Path:
    """The plugin library of the newest build tree."""
    return _require("*/libedgeformer_plugins.so")


@pytest.fixture(scope="session")
def emulated_kernels() -> Path:
    """The kernels compiled for the CPU."""
    return _require("*/plugins/tests/libedgeformer_emulated_kernels.so")


@pytest.fixture
def run_cmake(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Configures ``tmp_path / "project"`` and returns exit code and output."""

    def run(*arguments: str, source: Path = tmp_path / "project") -> tuple[int, str]:
        command = ["cmake", "-S", str(source), "-B", str(tmp_path / "build"), *arguments]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        return process.returncode, process.stdout + process.stderr

    return run
