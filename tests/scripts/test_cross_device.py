"""scripts/cross_device.py: what it runs, and what it says of what is not there. Nothing is compiled here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script in a checkout with the compilers and CUDA 12.6 for Arm."""
    module = load_script("cross_device")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.delenv("CUDACXX", raising=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nvcc", "aarch64-linux-gnu-g++"):
        (programs / name).touch(0o755)
    (programs / "cmake").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/cmake.txt\n')
    (programs / "cmake").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    (tmp_path / "third_party" / "cuda" / "12.6" / "bin").mkdir(parents=True)
    (tmp_path / "third_party" / "cuda" / "12.6" / "bin" / "nvcc").touch()
    return module


def test_the_presets_are_cmakes(script: ModuleType) -> None:
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    cuda = {item["name"]: item["cacheVariables"].get("EDGEFORMER_CUDA_RELEASE") for item in presets}
    assert {name: cuda[name] for name in script.PRESETS} == script.PRESETS


def test_without_fetching_what_is_there_is_built(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--no-fetch", "--jobs", "3"]) == 0
    configured, built = (tmp_path / "cmake.txt").read_text().splitlines()
    folder = tmp_path / "build" / "jetson-orin"
    assert configured.startswith(f"-S {tmp_path} --preset jetson-orin -B {folder} ")
    assert "-DEDGEFORMER_FETCH_RUNTIME_HEADERS=OFF" in configured
    assert built == f"--build {folder} --parallel 3"
    assert "no runtime library: OpenSSL for Arm is not in" in capsys.readouterr().err
    library = tmp_path / "third_party" / "arm" / "openssl" / "usr" / "lib" / "aarch64-linux-gnu" / "libcrypto.a"
    library.parent.mkdir(parents=True)
    library.touch()
    assert script.main(["--no-fetch"]) == 0
    assert f"-DOPENSSL_CRYPTO_LIBRARY={library}" in (tmp_path / "cmake.txt").read_text()


def test_what_is_missing_is_named(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--no-fetch", "--preset", "jetson"]) == 1
    assert "no CUDA 13.0 for Arm: scripts/fetch_cuda_runtime.py 13.0" in capsys.readouterr().err
    (tmp_path / "bin" / "nvcc").unlink()
    assert script.main([]) == 1
    assert "not installed: nvcc (the CUDA toolkit, 13.0 or newer)" in capsys.readouterr().err
    assert not (tmp_path / "cmake.txt").exists()
