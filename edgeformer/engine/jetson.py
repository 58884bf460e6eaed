"""What goes wrong on boards, looked for on a Jetson: by `edgeformer doctor`, and before a bundle is finished there.

Each of these is met by people again and again, and each makes a message far from its cause. Files alone are read, and
``nvpmodel -q`` is run; nothing is changed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeformer.engine.facts import Fact
from edgeformer.errors import EnvironmentFault
from edgeformer.machine.board import power_mode, read_memory
from edgeformer.machine.devices import GpuSurvey
from edgeformer.machine.jetpack import Release
from edgeformer.machine.plugin_library import find_plugin_library
from edgeformer.ops.library_files import BUILD_COMMAND

__all__ = ["jetson_facts"]

_ROOT = Path("/")
# An engine's build takes about as much: CUDA and TensorRT's libraries, weights in two forms, kernels tried out.
_FREE_BYTES = 3 << 30
# Boards with more memory build without swap.
_SWAP_BELOW_BYTES = 16 << 30
_ROOM_BYTES = 1 << 30
# Where pip's packages for servers (SBSA) keep TensorRT's libraries; JetPack's lie with the system's.
_PIP_LIBRARIES = "tensorrt_libs"
# The JetPack whose boards that TensorRT does not know: L4T 36 is JetPack 6.
_PIP_UNKNOWN_L4T = "36."
_FULL_POWER = "MAXN"
_CONTAINER_MARKS = (".dockerenv", "run/.containerenv")
_DRIVER_FOLDERS = (
    "usr/lib/aarch64-linux-gnu/nvidia",
    "usr/lib/aarch64-linux-gnu/tegra",
    "usr/lib/aarch64-linux-gnu",
)
# TensorRT needs it from L4T 39 on, and a container has it from its host.
_DLA_COMPILER = "libnvdla_compiler.so"
_DEVICE_NODES = ("dev/nvhost-gpu", "dev/nvmap", "dev/nvidia0")


def jetson_facts(release: Release, survey: GpuSurvey, root: Path = _ROOT) -> tuple[Fact, ...]:
    """What people often meet on a Jetson, each as a fact. Never raises.

    Args:
        release: the Jetson Linux of this machine.
        survey: its GPUs.
        root: where the machine's file system begins.
    """
    return tuple(_facts(release, survey, root))


def _facts(release: Release, survey: GpuSurvey, root: Path) -> Iterator[Fact]:
    yield _power(root)
    yield from _memory(root)
    yield from _room()
    yield from _cuda_path(root)
    yield from _pip_tensorrt(release)
    yield from _environment(release, root)
    yield from _container(release, root)
    yield from _permissions(survey, root)
    yield from _kernels(survey)


def _power(root: Path) -> Fact:
    name = "power mode"
    mode = power_mode(root)
    if mode is None:
        return Fact(name=name, status="ok", detail="nvpmodel does not tell it")
    if mode.upper().startswith(_FULL_POWER):
        return Fact(name=name, status="ok", detail=mode)
    return Fact(
        name=name,
        status="missing",
        detail=f"{mode}, which is not the fastest: TensorRT picks kernels by times that hold for this mode alone",
        remedy="sudo nvpmodel -m 0 && sudo jetson_clocks, before the engine is built",
    )


def _memory(root: Path) -> Iterator[Fact]:
    memory = read_memory(root)
    if memory is None:
        return
    free, total = f"{memory.available / 1e9:.1f} GB", f"{memory.total / 1e9:.1f} GB"
    if memory.available < _FREE_BYTES:
        yield Fact(
            name="memory",
            status="missing",
            detail=f"{free} of {total} are free, and an engine's build wants {_FREE_BYTES / 1e9:.1f} GB",
            remedy="close other programs; the desktop: sudo systemctl isolate multi-user.target",
        )
    else:
        yield Fact(name="memory", status="ok", detail=f"{free} of {total} are free")
    if memory.swap:
        yield Fact(name="swap", status="ok", detail=f"{memory.swap / 1e9:.1f} GB")
    elif memory.total < _SWAP_BELOW_BYTES:
        yield Fact(
            name="swap",
            status="missing",
            detail=f"none, with {total} of memory: the kernel ends the engine's build where memory runs out",
            remedy="sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && "
            "sudo swapon /swapfile",
        )


def _room() -> Iterator[Fact]:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < _ROOM_BYTES:
        yield Fact(
            name="disk",
            status="missing",
            detail=f"{free / 1e6:.0f} MB are free in {folder}, where the engine is built",
            remedy="make room there, or name another folder in $TMPDIR",
        )


def _cuda_path(root: Path) -> Iterator[Fact]:
    folder = root / "usr/local/cuda/bin"
    if shutil.which("nvcc") is None and (folder / "nvcc").exists():
        yield Fact(
            name="CUDA on PATH",
            status="missing",
            detail=f"CUDA is in {folder.parent}, and JetPack leaves it to you to put it on PATH: CMake and pip find "
            "no compiler",
            remedy=f"export PATH={folder}:$PATH",
        )


def _pip_tensorrt(release: Release) -> Iterator[Fact]:
    found = importlib.util.find_spec(_PIP_LIBRARIES)
    if found is None or not release.l4t.startswith(_PIP_UNKNOWN_L4T):
        return
    where = next(iter(found.submodule_search_locations or ()), _PIP_LIBRARIES)
    yield Fact(
        name="TensorRT for SM 87",
        status="missing",
        detail=f"pip installed a TensorRT for servers in {where}, which is found before JetPack's: it ends with "
        "'Target GPU SM 87 is not supported by this TensorRT release'",
        remedy="pip uninstall tensorrt tensorrt-cu12 tensorrt-cu12-libs tensorrt-cu12-bindings tensorrt-cu13 "
        "tensorrt-cu13-libs tensorrt-cu13-bindings, then sudo apt-get install python3-libnvinfer",
    )


def _environment(release: Release, root: Path) -> Iterator[Fact]:
    """JetPack's TensorRT is there, and a virtual environment does not see it."""
    python = release.jetpack.python if release.jetpack is not None else None
    system = root / f"usr/lib/python{python}/dist-packages/tensorrt"
    if python is None or sys.prefix == sys.base_prefix or not system.is_dir():
        return
    if importlib.util.find_spec("tensorrt") is None:
        yield Fact(
            name="TensorRT in this environment",
            status="missing",
            detail=f"JetPack's is in {system.parent}, and the environment {sys.prefix} does not see it",
            remedy=f"python{python} -m venv --system-site-packages {sys.prefix}",
        )


def _container(release: Release, root: Path) -> Iterator[Fact]:
    inside = any((root / mark).exists() for mark in _CONTAINER_MARKS)
    has_it = any((root / folder / _DLA_COMPILER).exists() for folder in _DRIVER_FOLDERS)
    if inside and not has_it and release.l4t.split(".")[0] >= "39":
        yield Fact(
            name="driver in this container",
            status="missing",
            detail=f"{_DLA_COMPILER} is not here, and TensorRT cannot be imported without it",
            remedy=f"start the container with --runtime nvidia, or mount the host's {_DLA_COMPILER} into it",
        )


def _permissions(survey: GpuSurvey, root: Path) -> Iterator[Fact]:
    closed = [
        root / node
        for node in _DEVICE_NODES
        if (root / node).exists() and not os.access(root / node, os.R_OK | os.W_OK)
    ]
    if closed and not survey.gpus:
        yield Fact(
            name="access to the GPU",
            status="missing",
            detail=f"{', '.join(map(str, closed))} may not be opened by this user, so that CUDA finds no GPU",
            remedy="sudo usermod -aG video,render $USER, then log in again",
        )


def _kernels(survey: GpuSurvey) -> Iterator[Fact]:
    try:
        library = find_plugin_library()
    except EnvironmentFault:
        return  # which the plugin library's own fact says
    gpu = survey.gpus[0] if survey.gpus else None
    if library is not None and gpu is not None and library.metadata.kernels_for(gpu.sm) is None:
        yield Fact(
            name="kernels for this GPU",
            status="missing",
            detail=f"{library.path} has kernels for {library.metadata.kernels}, and this GPU is SM {gpu.sm}",
            remedy=f"{BUILD_COMMAND}, with -DEDGEFORMER_CUDA_ARCHITECTURES={gpu.sm}-real",
        )
