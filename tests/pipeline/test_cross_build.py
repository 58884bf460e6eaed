"""When the libraries for a device are compiled by the way, and what is said where that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.engine.targets import get_target
from edgeformer.pipeline.cross_build import can_cross_compile, cross_command, cross_compile, preset_of

ORIN, THOR, A100 = (get_target(name) for name in ("jetson-agx-orin", "jetson-thor", "a100"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source checkout in which all is there for JetPack 6, and a script that says what it was asked for."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "cross_device.py").write_text("import sys\nprint('asked for', *sys.argv[1:], flush=True)\n")
    nvcc = tmp_path / "third_party" / "cuda" / "12.6" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("cmake", "nvcc", "aarch64-linux-gnu-g++"):
        (programs / name).touch(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def test_each_device_has_its_preset() -> None:
    assert [preset_of(target) for target in (ORIN, THOR, A100)] == ["jetson-orin", "jetson", None]
    assert cross_command(THOR) == "scripts/cross_device.py --preset jetson"
    assert "docs/building.md" in cross_command(A100)


def test_nothing_is_begun_without_all_that_it_takes(checkout: Path) -> None:
    assert can_cross_compile(ORIN, checkout)
    assert not can_cross_compile(THOR, checkout)  # it needs CUDA 13.0's runtime
    assert not can_cross_compile(A100, checkout)
    (checkout / "bin" / "aarch64-linux-gnu-g++").unlink()
    assert not can_cross_compile(ORIN, checkout)
    (checkout / "bin" / "aarch64-linux-gnu-g++").touch(0o755)
    (checkout / "scripts" / "cross_device.py").unlink()
    assert not can_cross_compile(ORIN, checkout)


def test_the_script_is_asked_to_fetch_nothing(checkout: Path) -> None:
    assert cross_compile(ORIN, checkout) == ""
    script = checkout / "scripts" / "cross_device.py"
    script.write_text(script.read_text() + "print('nvcc fatal: no', file=sys.stderr)\nraise SystemExit(1)\n")
    assert cross_compile(ORIN, checkout) == "asked for --preset jetson-orin --no-fetch\nnvcc fatal: no"
