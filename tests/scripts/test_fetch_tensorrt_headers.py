"""scripts/fetch_tensorrt_headers.py: what it takes from a wheel, and every way it can fail. Nothing is downloaded."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = "kernel_lens/include/tensorrt"


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that writes below ``tmp_path``."""
    module = load_script("fetch_tensorrt_headers")
    monkeypatch.setattr(module, "DESTINATION", tmp_path / "tensorrt" / "include")
    return module


@pytest.fixture
def serve(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Makes the script "download" a wheel with these members; returns a list that grows with each download."""

    def install(members: dict[str, bytes], *, pinned: bool = True) -> list[int]:
        wheel = tmp_path / "kernel_lens.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        downloads: list[int] = []

        def download(wanted: object, folder: Path) -> Path:
            downloads.append(1)
            return wheel

        monkeypatch.setattr("wheels.download", download)
        if pinned:
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            monkeypatch.setattr(script, "WHEEL", dataclasses.replace(script.WHEEL, sha256=digest))
        return downloads

    return install


def test_headers_are_taken_and_nothing_else(
    script: ModuleType, serve: Callable[..., list[int]], tmp_path: Path
) -> None:
    serve(
        {
            f"{FOLDER}/NvInferRuntime.h": b"runtime",
            f"{FOLDER}/NvInferVersion.h": b"version",
            f"{FOLDER}/readme.txt": b"",
            f"{FOLDER}/sub/Other.h": b"",
            f"{FOLDER}/../../../escape.h": b"",
            "/absolute.h": b"",
            "../../escape.h": b"",
            "kernel_lens/setup.py": b"",
        }
    )
    assert script.main() == 0
    files = {path.name: path.read_bytes() for path in script.DESTINATION.iterdir()}
    assert sorted(files) == ["NvInferRuntime.h", "NvInferVersion.h", "SOURCE"]
    assert files["NvInferRuntime.h"] == b"runtime"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel_lens.whl", "tensorrt"]


def test_a_second_run_downloads_nothing(script: ModuleType, serve: Callable[..., list[int]]) -> None:
    downloads = serve({f"{FOLDER}/NvInferRuntime.h": b"runtime"})
    assert script.main() == script.main() == 0
    assert len(downloads) == 1


def test_headers_of_another_wheel_are_replaced(script: ModuleType, serve: Callable[..., list[int]]) -> None:
    script.DESTINATION.mkdir(parents=True)
    (script.DESTINATION / "Old.h").write_text("old")
    (script.DESTINATION / "SOURCE").write_text("kernel-lens==1.0 sha256:0\n")
    serve({f"{FOLDER}/NvInferRuntime.h": b"runtime"})
    assert script.main() == 0
    assert not (script.DESTINATION / "Old.h").exists()


def test_a_wheel_with_another_hash_is_refused(
    script: ModuleType, serve: Callable[..., list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    serve({f"{FOLDER}/NvInferRuntime.h": b"tampered"}, pinned=False)
    assert script.main() == 1
    assert "not the pinned 07cc714e" in capsys.readouterr().err
    assert not script.DESTINATION.exists()


def test_a_wheel_without_headers_is_refused(
    script: ModuleType, serve: Callable[..., list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    serve({"kernel_lens/__init__.py": b""})
    assert script.main() == 1
    assert f"holds no TensorRT headers in {FOLDER}" in capsys.readouterr().err
    assert not script.DESTINATION.exists()


def test_an_unreachable_registry_says_what_to_do(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert script.main() == 1
    message = capsys.readouterr().err
    assert "pip could not download kernel-lens==2.0.1" in message
    assert "set TENSORRT_ROOT" in message
    assert not script.DESTINATION.exists()


def test_a_folder_that_cannot_be_written_is_named(
    script: ModuleType, serve: Callable[..., list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorrt").write_text("a file in the way")
    serve({f"{FOLDER}/NvInferRuntime.h": b"runtime"})
    assert script.main() == 1
    assert f"cannot write {script.DESTINATION}" in capsys.readouterr().err
