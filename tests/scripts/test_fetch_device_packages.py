"""scripts/fetch_device_packages.py: which wheels it asks for. Nothing is downloaded here."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_script("fetch_device_packages")
    monkeypatch.setattr(module, "DESTINATION", tmp_path / "device")
    monkeypatch.setattr(module, "find_pip", lambda folder: ["pip"])
    return module


def test_the_pythons_are_those_of_jetpack(script: ModuleType) -> None:
    assert script.pythons("aarch64") == ["3.10", "3.12"]
    assert script.pythons("x86_64") == ["3.10", "3.11", "3.12", "3.13"]


def test_each_package_is_pinned_once_with_hashes(script: ModuleType) -> None:
    old, new = script.requirements("3.10"), script.requirements("3.12")
    for text in (old, new):
        names = re.findall(r"^([a-z-]+)==", text, re.MULTILINE)
        assert sorted(names) == sorted(script.PACKAGES)
        assert " ; " not in text
        assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in re.split(r"\n(?=[a-z])", text))
    # NumPy's newest is not for Python 3.10.
    versions = [re.search(r"^numpy==(\S+)", text, re.MULTILINE) for text in (old, new)]
    assert versions[0] is not None
    assert versions[1] is not None
    assert versions[0][1] != versions[1][1]


@pytest.mark.parametrize(
    ("marker", "python", "holds"),
    [
        ("", "3.10", True),
        ("python_full_version < '3.11'", "3.10", True),
        ("python_full_version < '3.11'", "3.12", False),
        ("python_full_version >= '3.11'", "3.12", True),
        ("python_full_version >= '3.11' and python_full_version < '3.12'", "3.12", False),
        ("python_full_version == '3.12'", "3.12", True),
    ],
)
def test_markers_are_those_of_the_devices_python(script: ModuleType, marker: str, python: str, holds: bool) -> None:
    assert script.holds(marker, python) is holds


def test_wheels_are_put_in_place_once(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        Path(command[command.index("--dest") + 1], "click-8-py3-none-any.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    script.fetch_packages("aarch64", "3.10")
    script.fetch_packages("aarch64", "3.10")
    (command,) = asked
    for words in (["--require-hashes"], ["--python-version", "3.10"], ["--platform", "manylinux_2_28_aarch64"]):
        assert any(command[index : index + len(words)] == words for index in range(len(command))), words
    assert (script.DESTINATION / "aarch64" / "cp310" / "click-8-py3-none-any.whl").read_bytes() == b"wheel"


def test_what_pip_cannot_get_is_said(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "no route")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(script.FetchError, match=r"Python 3\.10:\nno route"):
        script.fetch_packages("aarch64", "3.10")
    assert not script.DESTINATION.exists()
