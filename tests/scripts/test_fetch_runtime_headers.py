"""scripts/fetch_runtime_headers.py: what it takes from two packages, and how it can fail. Nothing is downloaded."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

JSON = {
    "nlohmann_json/include/nlohmann/json.hpp": b"json",
    "nlohmann_json/include/nlohmann/detail/value_t.hpp": b"detail",
    "nlohmann_json/include/../../evil.hpp": b"evil",
    "nlohmann_json/__init__.py": b"code",
}
ONNXRUNTIME = {
    "./usr/include/onnxruntime/onnxruntime_c_api.h": b"c api",
    "./usr/include/onnxruntime/core/other.h": b"deeper",
    "./usr/include/onnxruntime/../../../evil.h": b"evil",
    "./usr/share/doc/readme.h": b"elsewhere",
}


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that writes below ``tmp_path``."""
    module = load_script("fetch_runtime_headers")
    monkeypatch.setenv("EDGEFORMER_DEBIAN_MIRROR", "https://mirror.example/debian/")
    monkeypatch.setattr(module, "THIRD_PARTY", tmp_path / "third_party")
    return module


def debian_package(members: dict[str, bytes], *, data: str = "data.tar.xz") -> bytes:
    """An ``ar`` archive as dpkg makes it."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (data, inner.getvalue())):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        package += header + content + b"\n" * (len(content) % 2)
    return package


@pytest.fixture
def serve(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes the script "download" a wheel and a package of these members; returns what it asked for."""

    def install(
        json: dict[str, bytes] = JSON, onnxruntime: dict[str, bytes] = ONNXRUNTIME, **options: Any
    ) -> list[str]:
        wheel = tmp_path / "nlohmann_json.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in json.items():
                archive.writestr(name, content)
        package = debian_package(onnxruntime, **options)
        asked: list[str] = []

        def download(wanted: Any, folder: Path) -> Path:
            asked.append(wanted.requirement)
            return wheel

        def urlopen(url: str, timeout: float) -> io.BytesIO:
            asked.append(url)
            return io.BytesIO(package)

        monkeypatch.setattr("wheels.download", download)
        monkeypatch.setattr("urllib.request.urlopen", urlopen)
        pinned = dataclasses.replace(script.JSON_WHEEL, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
        monkeypatch.setattr(script, "JSON_WHEEL", pinned)
        digest = hashlib.sha256(package).hexdigest()
        monkeypatch.setattr(script, "DEBIAN_PACKAGE", (script.DEBIAN_PACKAGE[0], digest))
        return asked

    return install


def test_headers_are_taken_and_nothing_else(
    script: ModuleType, serve: Callable[..., list[str]], tmp_path: Path
) -> None:
    asked = serve()
    assert script.main() == 0
    assert asked[1] == f"https://mirror.example/debian/{script.DEBIAN_PACKAGE[0]}"
    assert len(asked) == 2
    third_party = tmp_path / "third_party"
    found = {str(path.relative_to(third_party)) for path in third_party.rglob("*") if path.is_file()}
    assert found == {
        "nlohmann_json/include/SOURCE",
        "nlohmann_json/include/nlohmann/json.hpp",
        "nlohmann_json/include/nlohmann/detail/value_t.hpp",
        "onnxruntime/include/SOURCE",
        "onnxruntime/include/onnxruntime_c_api.h",
    }
    assert (third_party / "onnxruntime" / "include" / "onnxruntime_c_api.h").read_bytes() == b"c api"
    assert script.main() == 0
    assert len(asked) == 2  # a second call finds them


def test_another_file_than_the_pinned_one_is_not_used(
    script: ModuleType,
    serve: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve()
    monkeypatch.setattr(script, "JSON_WHEEL", dataclasses.replace(script.JSON_WHEEL, sha256="0" * 64))
    monkeypatch.setattr(script, "DEBIAN_PACKAGE", (script.DEBIAN_PACKAGE[0], "1" * 64))
    assert script.main() == 1
    message = capsys.readouterr().err
    assert f"not the pinned {'0' * 64}" in message
    assert f"not the pinned {'1' * 64}" in message
    assert "nlohmann-json3-dev and libonnxruntime-dev" in message
    assert not script.THIRD_PARTY.exists()


@pytest.mark.parametrize(
    ("served", "message"),
    [
        ({"json": {"nlohmann_json/other.hpp": b""}}, "holds no nlohmann/json.hpp"),
        ({"onnxruntime": {"./usr/include/other.h": b""}}, "holds no onnxruntime_c_api.h"),
        ({"data": "other.tar.xz"}, "holds no data.tar"),
    ],
    ids=["wheel", "package", "no data"],
)
def test_packages_without_the_headers_are_refused(
    script: ModuleType,
    serve: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    served: dict[str, Any],
    message: str,
) -> None:
    serve(**served)
    assert script.main() == 1
    assert message in capsys.readouterr().err


def test_what_is_no_archive_is_refused(script: ModuleType) -> None:
    with pytest.raises(script.FetchError, match="is no ar archive"):
        script.headers_from_package(b"nonsense")


def test_no_network_is_said(
    script: ModuleType,
    serve: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve()

    def fail(url: str, timeout: float) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    assert script.main() == 1
    assert "could not be downloaded: no route to host" in capsys.readouterr().err
    assert (script.THIRD_PARTY / "nlohmann_json" / "include" / "SOURCE").is_file()  # the other one is there


def test_apts_archives_are_asked_in_turn(
    script: ModuleType, serve: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve()
    served: Any = urllib.request.urlopen
    monkeypatch.delenv("EDGEFORMER_DEBIAN_MIRROR")
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'file:/local http://a.example/security/ http://b.example/debian/'\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = []

    def urlopen(url: str, timeout: float) -> Any:
        asked.append(url.partition("/pool/")[0])
        if "a.example" in url:
            raise OSError("HTTP Error 404: Not Found")
        return served(url, timeout)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert script.main() == 0
    assert asked == ["http://a.example/security", "http://b.example/debian"]


def test_a_machine_without_apt_is_told_what_to_set(
    script: ModuleType,
    serve: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve()
    monkeypatch.delenv("EDGEFORMER_DEBIAN_MIRROR")
    monkeypatch.setattr("subprocess.run", _no_such_program)
    assert script.archives() == []
    with pytest.raises(script.FetchError, match=r"apt names no archive\. Set EDGEFORMER_DEBIAN_MIRROR"):
        script.fetch_onnxruntime()


def _no_such_program(*_arguments: Any, **_options: Any) -> None:
    raise FileNotFoundError("apt-get")
