"""scripts/fetch_cuda_runtime.py: the toolkits it assembles, and every way it can fail. Nothing is downloaded here."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wheels import Wheel

RUNTIME = {
    "13.0": {
        "nvidia/cu13/include/cuda_runtime_api.h": b"#define CUDART_VERSION 13000",
        "nvidia/cu13/lib/libcudart_static.a": b"static",
        "nvidia/cu13/lib/libcudart.so.13": b"shared",
    },
    "12.6": {
        "nvidia/cuda_runtime/include/cuda_runtime_api.h": b"#define CUDART_VERSION 12060",
        "nvidia/cuda_runtime/lib/libcudart.so.12": b"shared",
        "nvidia/cuda_runtime/lib/__init__.py": b"",
        "nvidia/cuda_runtime/../../escape": b"",
    },
}
# What is beside it shows what it was called with.
ASSEMBLER = {"nvidia/cuda_nvcc/bin/ptxas": b'#!/bin/sh\ncat "$2"\n'}


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CUDA toolkit with an nvcc that says where it is."""
    root = tmp_path / "cuda"
    for name in ("nvcc", "cudafe++", "fatbinary", "bin2c", "nvlink", "ptxas"):
        program = root / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '#$ TOP={root}/bin/..' >&2\n")
        program.chmod(0o755)
    for folder in ("bin/crt", "include/crt", "include/cccl/nv", "nvvm/bin"):
        (root / folder).mkdir(parents=True)
    (root / "include" / "fatbinary_section.h").touch()
    monkeypatch.setenv("CUDACXX", str(root / "bin" / "nvcc"))
    return root


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that writes below ``tmp_path``."""
    module = load_script("fetch_cuda_runtime")
    monkeypatch.setattr(module, "DESTINATION", tmp_path / "third_party")
    return module


@pytest.fixture
def downloads(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the script "download" wheels that hold what stands above; the list has what it asked for."""
    wheels: dict[str, Path] = {}
    releases = {}

    def pin(wheel: Wheel, members: dict[str, bytes]) -> Wheel:
        path = tmp_path / f"wheel{len(wheels)}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        wheels[wheel.requirement] = path
        return dataclasses.replace(wheel, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    for name, release in script.RELEASES.items():
        assembler = release.assembler and pin(release.assembler, ASSEMBLER)
        releases[name] = dataclasses.replace(release, runtime=pin(release.runtime, RUNTIME[name]), assembler=assembler)
    monkeypatch.setattr(script, "RELEASES", releases)
    asked: list[str] = []

    def download(wheel: Wheel, folder: Path) -> Path:
        asked.append(wheel.requirement)
        return wheels[wheel.requirement]

    monkeypatch.setattr("wheels.download", download)
    return asked


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["fetch_cuda_runtime", *arguments])
    code: int = script.main()
    return code


def test_cuda_13_is_the_toolkit_at_hand_with_another_runtime(
    script: ModuleType, toolkit: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(script, monkeypatch, "13.0") == 0
    root = script.DESTINATION / "13.0"
    assert (root / "bin" / "ptxas").resolve() == toolkit / "bin" / "ptxas"
    assert (root / "nvvm").resolve() == toolkit / "nvvm"
    assert (root / "include" / "nv").resolve() == toolkit / "include" / "cccl" / "nv"
    assert (root / "include" / "cuda_runtime_api.h").read_bytes() == b"#define CUDART_VERSION 13000"
    assert (root / "lib64" / "libcudart_static.a").read_bytes() == b"static"
    assert (root / "lib64" / "libcudart.so").read_bytes() == b"shared"
    assert "TOP" in (root / "bin" / "nvcc.profile").read_text()
    assert len(downloads) == 1


def test_cuda_12_6_brings_its_own_assembler_and_the_shared_runtime(
    script: ModuleType, toolkit: Path, downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(script, monkeypatch, "12.6") == 0
    root = script.DESTINATION / "12.6"
    assert sorted(path.name for path in (root / "lib64").iterdir()) == [
        "libcudadevrt.a",
        "libcudart.so",
        "libcudart.so.12",
        "libcudart_static.a",
    ]
    assert (root / "lib64" / "libcudart_static.a").read_text() == "INPUT(-lcudart)\n"
    assert not list(tmp_path.rglob("escape"))
    # nvcc's PTX is labelled for this ptxas; what is not the label stays.
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text("//\n.version 9.0\n.target sm_87\n" + "\n" * 30 + ".version 9.0\n")
    assembled = subprocess.run(
        [root / "bin" / "ptxas", "-arch=sm_87", ptx], capture_output=True, text=True, check=True
    ).stdout
    assert assembled.splitlines()[:3] == ["//", ".version 8.5", ".target sm_87"]
    assert assembled.splitlines()[-1] == ".version 9.0"


@pytest.mark.usefixtures("toolkit")
def test_a_second_run_downloads_nothing(
    script: ModuleType, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(script, monkeypatch) == run(script, monkeypatch) == 0
    assert len(downloads) == 3


def test_another_nvcc_makes_the_toolkit_anew(
    script: ModuleType, toolkit: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(script, monkeypatch, "13.0") == 0
    moved = toolkit.rename(toolkit.with_name("cuda-next"))
    (moved / "bin" / "nvcc").write_text(f"#!/bin/sh\necho '#$ TOP={moved}/bin/..' >&2\n")
    monkeypatch.setenv("CUDACXX", str(moved / "bin" / "nvcc"))
    assert run(script, monkeypatch, "13.0") == 0
    assert (script.DESTINATION / "13.0" / "bin" / "ptxas").resolve() == moved / "bin" / "ptxas"
    assert len(downloads) == 2


@pytest.mark.usefixtures("toolkit", "downloads")
def test_a_wheel_with_another_hash_is_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = script.RELEASES["13.0"]
    wrong = dataclasses.replace(release, runtime=dataclasses.replace(release.runtime, sha256="0123"))
    monkeypatch.setitem(script.RELEASES, "13.0", wrong)
    assert run(script, monkeypatch, "13.0") == 1
    assert "not the pinned 0123" in capsys.readouterr().err
    assert not script.DESTINATION.exists()


def test_unknown_releases_are_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, monkeypatch, "11.4") == 1
    assert "release '11.4': known are 13.0, 12.6" in capsys.readouterr().err


def test_without_nvcc_the_message_says_what_to_do(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run(script, monkeypatch) == 1
    message = capsys.readouterr().err
    assert "no nvcc: install a CUDA toolkit" in message
    assert "targets/aarch64-linux" in message


def test_a_program_that_is_no_nvcc(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDACXX", "true")
    assert run(script, monkeypatch) == 1
    assert "does not say where its toolkit is" in capsys.readouterr().err
