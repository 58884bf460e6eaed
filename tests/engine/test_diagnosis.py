from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeformer.engine import diagnosis
from edgeformer.engine.diagnosis import Fact, diagnose
from edgeformer.machine.backends import Backend, Flavour
from edgeformer.machine.devices import Gpu, GpuSurvey
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
    monkeypatch.setattr("shutil.which", lambda name: None)
    return tmp_path


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
