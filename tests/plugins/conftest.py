from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeformer.machine.plugin_library import read_plugin_library
from edgeformer.ops.library_files import BUILD_COMMAND, development_builds, searched_places

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def plugin_library() -> Path:
    """The plugin library of the newest build tree for this processor."""
    for path in development_builds():
        if read_plugin_library(path).metadata.cpu == platform.machine():
            return path
    pytest.skip(f"no build tree has the plugin library ({searched_places()}): {BUILD_COMMAND}")


@pytest.fixture(scope="session")
def emulated_kernels() -> Path:
    """The kernels compiled for the CPU."""
    pattern = "*/plugins/tests/libedgeformer_emulated_kernels.so"
    newest = max((ROOT / "build").glob(pattern), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        pytest.skip(f"build/{pattern} is not built: {BUILD_COMMAND}")
    return newest


@pytest.fixture
def run_cmake(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Configures ``tmp_path / "project"`` and returns exit code and output."""

    def run(*arguments: str, source: Path = tmp_path / "project") -> tuple[int, str]:
        command = ["cmake", "-S", str(source), "-B", str(tmp_path / "build"), *arguments]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        return process.returncode, process.stdout + process.stderr

    return run
