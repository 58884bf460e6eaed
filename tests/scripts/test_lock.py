"""scripts/lock/: every dependency of pyproject.toml is pinned with hashes, for each Python. Nothing is fetched."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MACHINES = ("x86_64", "aarch64")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@pytest.fixture
def lock(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("lock")


def environment(python: str, machine: str) -> dict[str, str]:
    """What markers see on Linux."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.9",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "platform_release": "6.1.0",
        "platform_version": "1",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
    }


def pinned(lock: ModuleType, where: dict[str, str]) -> dict[str, str]:
    """Name and version of every package that the files install there, none of them twice."""
    versions: dict[str, str] = {}
    for file in lock.FILES:
        for entry in lock.entries((lock.FOLDER / f"{file}.txt").read_text()):
            requirement = Requirement(entry.split(lock.SEPARATOR)[0])
            if requirement.marker is None or requirement.marker.evaluate(where):
                assert requirement.name not in versions, f"{requirement.name} is in {file}.txt and elsewhere"
                versions[requirement.name] = str(requirement.specifier).removeprefix("==")
    return versions


def fits(version: str | None, requirement: Requirement) -> bool:
    """Whether there is a version and the requirement admits it."""
    return version is not None and version in requirement.specifier


def asked_for(lock: ModuleType) -> list[Requirement]:
    """Every requirement of pyproject.toml: build system, dependencies, each extra."""
    found = lock.pyproject()
    project = found["project"]
    texts = [*found["build-system"]["requires"], *project["dependencies"], *lock.SOURCE_BUILDS, *lock.SMOKE_TESTS]
    texts += [text for extra in project["optional-dependencies"].values() for text in extra]
    return [Requirement(text) for text in texts if not text.startswith(f"{project['name']}[")]


def test_the_pythons_are_those_that_pip_admits(lock: ModuleType) -> None:
    assert lock.pythons() == ["3.10", "3.11", "3.12", "3.13"]
    assert lock.pyproject()["project"]["requires-python"] == f">={lock.pythons()[0]}"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_within_its_range(lock: ModuleType, python: str, machine: str) -> None:
    where = environment(python, machine)
    versions = pinned(lock, where)
    wrong = [
        f"{requirement}: {versions.get(canonicalize_name(requirement.name))}"
        for requirement in asked_for(lock)
        if requirement.marker is None or requirement.marker.evaluate(where)
        if not fits(versions.get(canonicalize_name(requirement.name)), requirement)
    ]
    assert wrong == []


def test_every_entry_has_hashes_and_nothing_else(lock: ModuleType) -> None:
    for file in [*lock.FILES, "torch_cpu"]:
        for entry in lock.entries((lock.FOLDER / f"{file}.txt").read_text()):
            first, *hashes = entry.split(lock.SEPARATOR)
            assert re.match(r"[a-z0-9-]+==[^=*,;\s]+( ; |$)", first), f"{file}.txt: {first}"
            assert hashes, f"{file}.txt: {first} has no hash"
            assert len(set(hashes)) == len(hashes), f"{file}.txt: {first}"
            assert [text for text in hashes if not HASH.fullmatch(text)] == [], f"{file}.txt: {first}"


def test_no_file_is_forgotten(lock: ModuleType) -> None:
    assert {path.name for path in lock.FOLDER.iterdir()} == {f"{name}.txt" for name in [*lock.FILES, "torch_cpu"]}


def test_torchs_cpu_builds_are_those_of_its_version(lock: ModuleType) -> None:
    (torch,) = lock.entries((lock.FOLDER / "torch.txt").read_text())
    assert (lock.FOLDER / "torch_cpu.txt").read_text() == f"{lock.HEADER}{lock.cpu_build(torch.split()[0])}\n"
    with pytest.raises(SystemExit, match=r"no torch==2\.99\.1\+cpu: add the SHA-256"):
        lock.cpu_build("torch==2.99.1")


def test_what_setup_installed_is_what_is_pinned_and_complete(lock: ModuleType) -> None:
    """pip resolved nothing, so the packages themselves are asked: each finds what it needs, transitively."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("this is not the environment that scripts/setup made")
    versions = pinned(lock, {name: str(value) for name, value in default_environment().items()})
    waiting, seen, wrong = [("edgeformer", frozenset({"test", "rtx", "video", "loadgen"}))], set(), []
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                continue
            waiting.append((needed, frozenset(requirement.extras)))
            if needed == "edgeformer":
                continue
            version = versions.get(needed)
            installed = importlib.metadata.version(needed).partition("+")[0]
            if not fits(version, requirement) or installed != version:
                wrong.append(f"{name} needs {requirement}: {version} is pinned, {installed} is installed")
    assert wrong == []
    assert len(seen) > 80
