from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeformer.engine import diagnosis
from edgeformer.engine.diagnosis import Fact, diagnose
from edgeformer.errors import EnvironmentFault
from edgeformer.machine.backends import Backend, Flavour, ImportedBackend
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.machine.jetpack import Release, list_jetpacks
from edgeformer.ops.library_files import ENVIRONMENT_VARIABLE
from tests.machine.test_plugin_library import METADATA, put, put_build


def facts() -> dict[str, Fact]:
    return {fact.name: fact for fact in diagnose()}


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on it."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr("edgeformer.ops.library_files._PACKAGE", tmp_path / "edgeformer")
    monkeypatch.setattr(diagnosis, "find_backend", lambda flavour: None)
    monkeypatch.setattr(diagnosis, "find_gpus", lambda: GpuSurvey((), None, None, "no NVIDIA driver"))
    monkeypatch.setattr(diagnosis, "_NVCC_FALLBACK", tmp_path / "nvcc")
    monkeypatch.setattr(diagnosis, "find_release", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name, **_: None)
    return tmp_path


def install(
    monkeypatch: pytest.MonkeyPatch, flavour: Flavour, module: str, *, library: str = "", package: str = ""
) -> None:
    """Put a TensorRT into /opt; the one that is imported has these versions."""
    backend = Backend(flavour, flavour, package or module, Path("/opt"))
    imported = ImportedBackend(flavour, module, library or module, package or module, "/opt")
    monkeypatch.setattr(diagnosis, "find_backend", lambda wanted: backend if wanted == flavour else None)
    monkeypatch.setattr(diagnosis, "probe_backend", lambda _: imported)


def jetson(monkeypatch: pytest.MonkeyPatch, l4t: str) -> None:
    """Make this machine a Jetson with this L4T."""
    jetpack = next((one for one in list_jetpacks() if l4t in one.l4t), None)
    release = Release(l4t=l4t, jetpack=jetpack, too_old=l4t.startswith("35."))
    monkeypatch.setattr(diagnosis, "find_release", lambda: release)


def test_bare_machine_lacks_everything_and_says_how_to_get_it(bare_machine: Path) -> None:
    found = facts()
    assert list(found) == ["tensorrt", "tensorrt_rtx", "cuda toolkit", "driver", "gpu", "plugin library"]
    assert {fact.status for fact in found.values()} == {"missing"}
    assert all(fact.remedy for fact in found.values())
    assert found["tensorrt_rtx"].remedy == "pip install 'edgeformer[rtx]'"
    assert found["plugin library"].remedy == "cmake --preset default && cmake --build --preset default"


def test_full_machine_is_ok(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[Flavour, str] = {"tensorrt": "10.13.0", "tensorrt_rtx": "1.7.1"}
    monkeypatch.setattr(
        diagnosis, "find_backend", lambda flavour: Backend(flavour, flavour, versions[flavour], Path("/opt"))
    )
    monkeypatch.setattr(
        diagnosis,
        "probe_backend",
        lambda found: ImportedBackend(found.flavour, found.version, found.version, found.version, str(found.path)),
    )
    gpus = (Gpu(0, "RTX 4090", 89, 25_300_000_000), Gpu(1, "RTX 3060", 86, 12_600_000_000))
    monkeypatch.setattr(diagnosis, "find_gpus", lambda: GpuSurvey(gpus, "580.65", "13.0", ""))
    nvcc = bare_machine / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.6, V12.6.68'\n")
    nvcc.chmod(0o755)
    library = put(bare_machine / "edgeformer" / "_plugins")
    library.with_name("libtensorrt_rtx.so").touch()
    found = facts()
    assert {fact.status for fact in found.values()} == {"ok"}
    assert all(not fact.remedy for fact in found.values())
    assert found["tensorrt"].detail == "10.13.0 in /opt"
    assert found["cuda toolkit"].detail == f"12.6 ({nvcc})"
    assert found["driver"].detail == "580.65, CUDA up to 13.0"
    assert found["gpu"].detail == "RTX 4090, SM 89, 25.3 GB; RTX 3060, SM 86, 12.6 GB"
    assert found["plugin library"].detail == (
        f"0.1.0, built with TensorRT 10.14.1 headers and CUDA 13.0 for SM 75, 86 ({library})"
    )


def test_tensorrt_that_is_too_old_counts_as_missing(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Backend("tensorrt", "tensorrt", "8.6.1", Path("/opt"))
    monkeypatch.setattr(diagnosis, "find_backend", lambda flavour: old if flavour == "tensorrt" else None)
    monkeypatch.setattr("edgeformer.machine.backends.find_backend", lambda flavour: old)
    fact = facts()["tensorrt"]
    assert fact.status == "missing"
    assert fact.detail.startswith("TensorRT 8.6.1 is installed in /opt; 10.3 or newer, below 12")


def test_a_bundle_in_the_build_folder_is_named_and_not_taken(bare_machine: Path) -> None:
    bundled = put(bare_machine / "build" / "demo")
    (bundled.parent / "manifest.json").write_text("{}")
    fact = facts()["plugin library"]
    assert fact.status == "missing"
    assert f"passed over: {bundled} (a bundle's copy)" in fact.detail
    built = put_build(bare_machine / "build" / "default")
    assert str(built) in facts()["plugin library"].detail


def test_plugin_library_without_its_alias_cannot_serve_tensorrt_rtx(bare_machine: Path) -> None:
    put(bare_machine / "edgeformer" / "_plugins")
    found = facts()
    assert found["plugin library"].status == "ok"
    assert found["plugin library for TensorRT-RTX"].status == "missing"
    put(bare_machine / "edgeformer" / "_plugins", {**METADATA, "aux": None})
    assert "plugin library for TensorRT-RTX" not in facts()


def test_damaged_plugin_library_is_a_fact_not_a_crash(bare_machine: Path) -> None:
    put(bare_machine / "edgeformer" / "_plugins", "{")
    fact = facts()["plugin library"]
    assert fact.status == "missing"
    assert "is damaged" in fact.detail


@pytest.mark.parametrize("error", [OSError("exec format error"), subprocess.TimeoutExpired("nvcc", 20)])
def test_nvcc_that_does_not_run(bare_machine: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr("shutil.which", lambda name: "/opt/nvcc")
    monkeypatch.setattr(subprocess, "run", fail)
    fact = facts()["cuda toolkit"]
    assert fact.status == "missing"
    assert "/opt/nvcc does not run" in fact.detail


def test_nvcc_that_says_nothing(bare_machine: Path) -> None:
    nvcc = bare_machine / "nvcc"
    nvcc.write_text("#!/bin/sh\n")
    nvcc.chmod(0o755)
    assert facts()["cuda toolkit"].detail.startswith(f"{nvcc} does not report its version")


@pytest.mark.parametrize(("supported", "status"), [("12.4", "missing"), ("13.0", "ok"), ("13.1", "ok"), ("14.0", "ok")])
def test_a_driver_that_is_too_old_for_the_library(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, supported: str, status: str
) -> None:
    """A driver runs what was built with its own major version of CUDA, or an older one."""
    put(bare_machine / "edgeformer" / "_plugins", {**METADATA, "cuda": "13.0", "aux": None})
    survey = GpuSurvey((Gpu(0, "RTX 4090", 89, 1 << 34),), "550.54", supported, "")
    monkeypatch.setattr(diagnosis, "find_gpus", lambda: survey)
    fact = facts()["plugin library"]
    assert fact.status == status
    assert ("the driver supports CUDA up to 12.4" in fact.detail) == (status == "missing")
    assert ("CUDA 12 toolkit" in fact.remedy) == (status == "missing")


def test_the_version_that_is_imported_counts(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt_rtx", "1.4.0.76", package="1.7.1.116")
    fact = facts()["tensorrt_rtx"]
    assert fact.status == "missing"
    for word in ("TensorRT-RTX 1.4.0.76", "the installed package is 1.7.1.116", "1.7 or newer", "PYTHONPATH"):
        assert word in fact.detail
    assert fact.remedy == "pip install 'edgeformer[rtx]'"
    # One that works is told of all the same.
    install(monkeypatch, "tensorrt_rtx", "1.7.1.116", library="1.7.2.9")
    fact = facts()["tensorrt_rtx"]
    assert (fact.status, fact.detail) == (
        "ok",
        "1.7.2.9 in /opt; the module imported from /opt is 1.7.1.116, the library that it loads is 1.7.2.9",
    )


def test_a_package_that_cannot_be_imported_is_missing(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(backend: Backend) -> ImportedBackend:
        raise EnvironmentFault("EF606", "cannot be imported: libnvinfer.so.10 is not there")

    install(monkeypatch, "tensorrt", "10.13.0")
    monkeypatch.setattr(diagnosis, "probe_backend", fail)
    fact = facts()["tensorrt"]
    assert (fact.status, fact.detail) == ("missing", "cannot be imported: libnvinfer.so.10 is not there")
    assert fact.remedy


def test_a_jetson_is_told_its_jetpack(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson(monkeypatch, "36.4.3")
    install(monkeypatch, "tensorrt", "10.3.0")
    found = facts()
    assert next(iter(found)) == "jetpack"
    assert (found["jetpack"].status, found["jetpack"].detail) == (
        "ok",
        "6.2 (L4T 36.4.3): TensorRT 10.3, CUDA 12.6, Python 3.10",
    )
    assert (found["tensorrt"].status, found["tensorrt"].detail) == ("ok", "10.3.0 in /opt")
    jetson(monkeypatch, "39.2.2")
    assert facts()["jetpack"].detail.endswith(
        "TensorRT 11.4.1; AGX Orin and Thor are named; Orin Nano and Orin NX are not"
    )


def test_tensorrt_of_another_jetpack_or_none(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson(monkeypatch, "36.4.3")
    install(monkeypatch, "tensorrt", "10.13.3")
    fact = facts()["tensorrt"]
    assert fact.status == "ok"
    assert "JetPack 6.2 brings TensorRT 10.3, and this is another one" in fact.detail
    for version in ("11.0.1", "11.3.0", "11.5.0.12"):
        install(monkeypatch, "tensorrt", version)
        fact = facts()["tensorrt"]
        assert fact.status == "missing"
        assert f"no JetPack brings TensorRT {version[:4]}" in fact.detail
    # What the JetPack has is not known, so nothing is said.
    jetson(monkeypatch, "39.2.1")
    install(monkeypatch, "tensorrt", "10.16.1")
    assert facts()["tensorrt"].detail == "10.16.1 in /opt"
    # On other machines TensorRT 11.0 is as good as any.
    monkeypatch.setattr(diagnosis, "find_release", lambda: None)
    install(monkeypatch, "tensorrt", "11.0.1")
    assert facts()["tensorrt"].status == "ok"


def test_a_jetpack_that_is_too_old_or_not_known(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson(monkeypatch, "35.6.4")
    fact = facts()["jetpack"]
    assert (fact.status, fact.remedy) == ("missing", "flash JetPack 6.1 or newer")
    assert fact.detail == "L4T 35.6.4 is older than JetPack 6.1, and TensorRT 10.3 is needed"
    jetson(monkeypatch, "41.0.0")
    fact = facts()["jetpack"]
    assert (fact.status, fact.detail) == ("ok", "L4T 41.0.0, of a JetPack that edgeformer's table does not have")
    jetson(monkeypatch, "")
    assert "cannot be read" in facts()["jetpack"].detail


def test_jetpacks_tensorrt_is_for_its_python(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson(monkeypatch, "36.4.3")
    monkeypatch.setattr("platform.python_version", lambda: "3.12.3")
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "12", "3"))
    fact = facts()["tensorrt"]
    assert "for Python 3.10, and this is Python 3.12.3" in fact.detail
    assert "python3.10 -m venv --system-site-packages" in fact.remedy
    jetson(monkeypatch, "38.4.0")
    assert "Python" not in facts()["tensorrt"].detail
