"""The faults that people meet on boards, each planted in a file system of its own, and found."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from edgeformer.engine import diagnosis, jetson
from edgeformer.engine.facts import Fact
from edgeformer.engine.jetson import jetson_facts
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.machine.jetpack import Release, list_jetpacks
from edgeformer.machine.plugin_library import PluginLibrary, PluginMetadata

ORIN = GpuSurvey((Gpu(0, "Orin", 87, 8_000_000_000),), "540.4", "12.6", "")
NO_GPU = GpuSurvey((), "540.4", None, "the NVIDIA driver does not start (cuInit gives CUDA error 999)")
MEMINFO = "MemTotal:        7802112 kB\nMemFree:  100 kB\nMemAvailable:    {free} kB\nSwapTotal:       {swap} kB\n"


def release(l4t: str = "36.4.3") -> Release:
    return Release(l4t, next((one for one in list_jetpacks() if l4t in one.l4t), None), too_old=False)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy Orin with 8 GB: the root of its file system."""
    (tmp_path / "proc").mkdir()
    memory(tmp_path, free=6_000_000, swap=3_900_000)
    power(tmp_path, "MAXN_SUPER")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(jetson, "find_plugin_library", lambda: library(87))
    return tmp_path


def memory(root: Path, *, free: int, swap: int) -> None:
    (root / "proc" / "meminfo").write_text(MEMINFO.format(free=free, swap=swap))


def power(root: Path, mode: str) -> None:
    program = root / "usr" / "sbin" / "nvpmodel"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\n[ "$1" = -q ] && echo "NV Power Mode: {mode}" && echo 2\n')
    program.chmod(0o755)


def library(*sms: int) -> PluginLibrary:
    metadata = {"version": "0.1.0", "tensorrt_headers": "10.14.1", "cuda": "12.6", "cpu": "aarch64", "ptx": []}
    return PluginLibrary(
        Path("/opt/libedgeformer_plugins.so"),
        PluginMetadata.model_validate({**metadata, "architectures": [str(sm) for sm in sms]}),
    )


def faults(root: Path, l4t: str = "36.4.3", survey: GpuSurvey = ORIN) -> dict[str, Fact]:
    return {fact.name: fact for fact in jetson_facts(release(l4t), survey, root) if fact.status != "ok"}


def only(found: dict[str, Fact], name: str, *words: str) -> Fact:
    """The one fault that was planted, which has a remedy and names these words."""
    assert list(found) == [name]
    fact = found[name]
    assert fact.remedy
    for word in words:
        assert word in f"{fact.detail} {fact.remedy}"
    return fact


def test_a_healthy_board_has_none(board: Path) -> None:
    assert faults(board) == {}
    details = {fact.name: fact.detail for fact in jetson_facts(release(), ORIN, board)}
    assert details == {"power mode": "MAXN_SUPER", "memory": "6.1 GB of 8.0 GB are free", "swap": "4.0 GB"}


def test_power_mode(board: Path) -> None:
    power(board, "MODE_15W")
    only(faults(board), "power mode", "15W", "sudo nvpmodel -m 0")


def test_no_swap(board: Path) -> None:
    memory(board, free=6_000_000, swap=0)
    only(faults(board), "swap", "none, with 8.0 GB", "swapon")


def test_memory_that_is_taken(board: Path) -> None:
    memory(board, free=1_000_000, swap=3_900_000)
    only(faults(board), "memory", "1.0 GB of 8.0 GB", "3.2 GB", "multi-user.target")


def test_cuda_not_on_path(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = board / "usr" / "local" / "cuda" / "bin"
    folder.mkdir(parents=True)
    (folder / "nvcc").write_text("#!/bin/sh\n")
    (folder / "nvcc").chmod(0o755)
    only(faults(board), "CUDA on PATH", f"export PATH={folder}:$PATH")
    monkeypatch.setenv("PATH", str(folder))
    assert faults(board) == {}


def test_a_wheel_without_sm_87(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = board / "site-packages"
    (site / "tensorrt_libs").mkdir(parents=True)
    (site / "tensorrt_libs" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    only(faults(board), "TensorRT for SM 87", str(site), "pip uninstall", "python3-libnvinfer")
    # On JetPack 7 pip's TensorRT is the board's, too.
    assert faults(board, "38.2.0") == {}


def test_an_environment_that_hides_jetpacks_tensorrt(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = board / "usr" / "lib" / "python3.10" / "dist-packages" / "tensorrt"
    system.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", "/home/me/env")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    find = importlib.util.find_spec

    def hidden(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name == "tensorrt" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    only(faults(board), "TensorRT in this environment", "/home/me/env", "python3.10 -m venv --system-site-packages")
    monkeypatch.setattr(sys, "prefix", "/usr")
    assert faults(board) == {}


def test_a_container_without_its_hosts_driver(board: Path) -> None:
    (board / ".dockerenv").touch()
    only(faults(board, "39.2.0"), "driver in this container", "libnvdla_compiler.so", "--runtime nvidia")
    assert faults(board, "36.4.3") == {}
    folder = board / "usr" / "lib" / "aarch64-linux-gnu" / "nvidia"
    folder.mkdir(parents=True)
    (folder / "libnvdla_compiler.so").touch()
    assert faults(board, "39.2.0") == {}


def test_a_user_who_may_not_open_the_gpu(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (board / "dev").mkdir()
    (board / "dev" / "nvhost-gpu").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("nvhost-gpu"))
    only(faults(board, survey=NO_GPU), "access to the GPU", "nvhost-gpu", "usermod -aG video,render")
    assert faults(board) == {}


def test_a_plugin_library_without_this_gpus_kernels(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson, "find_plugin_library", lambda: library(86, 110))
    only(faults(board), "kernels for this GPU", "SM 86, 110", "SM 87", "EDGEFORMER_CUDA_ARCHITECTURES=87-real")


def test_a_full_disk(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 9 * 10**8, 10**8))
    only(faults(board), "disk", "100 MB", "TMPDIR")


def test_what_does_not_tell_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(jetson, "find_plugin_library", lambda: None)
    assert faults(tmp_path) == {}
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert faults(tmp_path) == {}


def test_doctor_tells_of_them_on_a_jetson_alone(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power(board, "MODE_15W")
    told: list[Any] = []

    def watched(found: Release, survey: GpuSurvey) -> tuple[Fact, ...]:
        told.append(found)
        return jetson_facts(found, survey, board)

    monkeypatch.setattr(diagnosis, "jetson_facts", watched)
    monkeypatch.setattr(diagnosis, "find_release", lambda: None)
    assert "power mode" not in {fact.name for fact in diagnosis.diagnose()}
    assert told == []
    monkeypatch.setattr(diagnosis, "find_release", release)
    fact = {fact.name: fact for fact in diagnosis.diagnose()}["power mode"]
    assert fact.status == "missing"
