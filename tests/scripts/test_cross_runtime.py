"""The runtime on Arm, as far as a machine without one can tell."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# It compiles the runtime once more, which takes about a minute.
WANTED = "EDGEFORMER_TEST_CROSS_RUNTIME"


@pytest.fixture
def cross_runtime(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("cross_runtime")


def test_what_is_missing_is_named(
    cross_runtime: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for tool in ("cmake", "dpkg-deb", "apt-get"):
        (tmp_path / tool).touch(0o755)
    assert cross_runtime.main(["--folder", str(tmp_path / "build")]) == 4
    assert capsys.readouterr().err == (
        "not run: not installed: aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu), "
        "qemu-aarch64-static (Debian: qemu-user-static)\n"
    )
    assert not (tmp_path / "build").exists()


@pytest.mark.slow
@pytest.mark.whole
def test_the_runtime_gives_on_arm_what_it_gives_here(
    cross_runtime: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.environ.get(WANTED):
        pytest.skip(f"not run: it takes a minute; set {WANTED}=1")
    status = cross_runtime.main(["--folder", str(tmp_path)])
    captured = capsys.readouterr()
    if status == 4:
        pytest.skip(captured.err)
    assert status == 0
    assert re.search(r"^backend +ONNX Runtime [\d.]+, .*onnxruntime\.so", captured.out, re.MULTILINE)
    difference = re.search(r"max \|diff\| / max \|ref\| (\S+)", captured.out)
    assert difference is not None
    assert float(difference[1]) < 1e-5
