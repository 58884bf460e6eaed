"""What a bundle brings to a Jetson, run on Arm's Python as far as a machine without one can."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# It fetches Debian's Python for Arm, and takes minutes under emulation.
WANTED = "EDGEFORMER_TEST_CROSS_RUNTIME"


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("try_device_part")


def test_what_is_missing_is_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for tool in ("dpkg-deb", "apt-get", "apt-cache"):
        (tmp_path / tool).touch(0o755)
    assert script.main(["--folder", str(tmp_path / "build")]) == 4
    assert capsys.readouterr().err == "not run: not installed: qemu-aarch64-static (Debian: qemu-user-static)\n"
    assert not (tmp_path / "build").exists()


def test_another_end_than_an_error_with_a_code_fails(script: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "finish"
    program.write_text('#!/bin/sh\necho "error EF701: no bundle" >&2\nexit 2\n')
    program.chmod(0o755)
    assert script.finish(tmp_path / "python", program, tmp_path) == "EF701"
    program.write_text("#!/bin/sh\necho Traceback >&2\nexit 1\n")
    with pytest.raises(SystemExit, match="ended with 1:\nTraceback"):
        script.finish(tmp_path / "python", program, tmp_path)


@pytest.mark.slow
@pytest.mark.whole
def test_the_packages_load_on_arm(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not os.environ.get(WANTED):
        pytest.skip(f"not run: it fetches Python for Arm; set {WANTED}=1")
    status = script.main(["--folder", str(tmp_path)])
    captured = capsys.readouterr()
    if status == 4:
        pytest.skip(captured.err)
    assert status == 0
    assert "not a bundle" in captured.out
