"""``device.pyz`` and the script ``finish``: what is in them, and that they run without what a device lacks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeformer.artifacts import sha256_of_file
from edgeformer.pipeline.device_bootstrap import python_folder, unpacked
from edgeformer.pipeline.device_part import device_packages, write_device_part, write_finish_script
from edgeformer.version import __version__

HERE = python_folder(*sys.version_info[:2])


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return path


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, tuple[Path, ...]]:
    """A package for this Python, which the archive brings, and one for another."""
    files = {
        "brought/__init__.py": "WHERE = __file__\n",
        "brought-1.0.dist-info/METADATA": "Name: brought\nVersion: 1.0\n",
        "brought-1.0.dist-info/RECORD": "",
    }
    wheel(tmp_path / "wheels" / "aarch64" / HERE, "brought-1.0-py3-none-any.whl", files)
    wheel(tmp_path / "wheels" / "aarch64" / "cp39", "brought-1.0-py3-none-any.whl", {"old/__init__.py": ""})
    (tmp_path / "wheels" / "aarch64" / "cp300").mkdir()
    return device_packages("aarch64", tmp_path / "wheels")


def test_packages_go_by_processor_and_python(packages: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    assert sorted(packages) == sorted({HERE, "cp39"})
    assert [path.name for path in packages[HERE]] == ["brought-1.0-py3-none-any.whl"]
    assert device_packages("x86_64", tmp_path / "wheels") == {}


def test_the_archive_is_the_same_whenever_it_is_written(packages: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    first, second = tmp_path / "first.pyz", tmp_path / "second.pyz"
    write_device_part(first, packages)
    for paths in packages.values():
        for path in paths:
            os.utime(path, (1, 1))
    write_device_part(second, packages)
    assert sha256_of_file(first) == sha256_of_file(second)
    names = set(zipfile.ZipFile(first).namelist())
    assert {"__main__.py", "common/edgeformer/cli/finish.py", "common/edgeformer/engine/targets.json"} < names
    assert {name for name in names if name.startswith(HERE)} == {f"{HERE}/brought-1.0-py3-none-any.whl"}


def test_it_is_unpacked_once_and_whole(packages: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    archive = tmp_path / "device.pyz"
    write_device_part(archive, packages)
    folder = unpacked(archive, tmp_path / "cache")
    assert (folder / HERE / "brought" / "__init__.py").is_file()
    assert sorted(path.name for path in (folder / HERE).iterdir()) == ["brought", "brought-1.0.dist-info"]
    assert not (folder / "cp39").exists()
    (folder / "mark").touch()
    assert unpacked(archive, tmp_path / "cache") == folder
    assert (folder / "mark").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    write_device_part(archive, {})
    assert unpacked(archive, tmp_path / "cache") != folder


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "finish"), *words],
        env={**os.environ, "PYTHON": sys.executable, "XDG_CACHE_HOME": str(folder / "cache"), **environment},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bundle(packages: dict[str, tuple[Path, ...]], tmp_path: Path) -> Path:
    folder = tmp_path / "a bundle"
    folder.mkdir()
    write_device_part(folder / "device.pyz", packages)
    write_finish_script(folder / "finish")
    return folder


def test_the_script_runs_the_bundles_own_edgeformer(bundle: Path) -> None:
    done = run(bundle, PYTHONPATH="")
    assert done.returncode == 2, done.stderr
    assert f"{bundle}: not a bundle, it has no manifest.json" in done.stderr
    done = run(bundle, "--help", PYTHONPATH="")
    assert "finish [OPTIONS] BUNDLE" in done.stdout
    (unpacked_folder,) = (bundle / "cache" / "edgeformer").iterdir()
    assert (unpacked_folder / "common" / "edgeformer" / "version.py").read_text().count(__version__) == 1


def test_a_python_without_the_packages_is_told(bundle: Path, tmp_path: Path) -> None:
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('pydantic', 'PIL'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in ('pydantic', 'PIL') else find(name)\n"
    )
    done = run(bundle, PYTHONPATH=str(hide))
    assert done.returncode == 4
    assert f"this is Python {platform.python_version()} without PIL, pydantic" in done.stderr
    assert "pip install pillow pydantic" in done.stderr
