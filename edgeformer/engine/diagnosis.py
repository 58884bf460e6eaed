"""What this machine has for building and running engines, and the command that installs what is missing."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from edgeformer.engine.facts import Fact
from edgeformer.engine.jetson import jetson_facts
from edgeformer.errors import EnvironmentFault
from edgeformer.machine.backends import (
    BACKEND_RANGES,
    FLAVOURS,
    Flavour,
    find_backend,
    install_command,
    missing_backend,
    probe_backend,
    version_tuple,
)
from edgeformer.machine.devices import GpuSurvey, find_gpus
from edgeformer.machine.jetpack import Release, find_release, list_jetpacks, lowest_tensorrt, tensorrt_without_jetpack
from edgeformer.machine.plugin_library import find_plugin_library, missing_plugin_library
from edgeformer.ops.library_files import BUILD_COMMAND

__all__ = ["Fact", "diagnose"]

_NVCC_FALLBACK = Path("/usr/local/cuda/bin/nvcc")
_NVCC_SECONDS = 20
_SERVES: dict[Flavour, str] = {
    "tensorrt_rtx": "builds engines for the RTX targets on any machine",
    "tensorrt": "builds engines on Jetson and on machines with data-centre GPUs",
}


def diagnose() -> tuple[Fact, ...]:
    """Look for JetPack, both TensorRT flavours, the CUDA compiler, the driver, the GPUs and the plugin library.

    JetPack, and what people often meet on a board, are looked for on a Jetson alone. TensorRT is imported in a child
    process: what counts is the version that Python imports. Never raises.
    """
    survey = find_gpus()
    release = find_release()
    return (
        *([] if release is None else [_jetpack(release)]),
        *(_backend(flavour, release) for flavour in FLAVOURS),
        _cuda_toolkit(),
        _driver(survey),
        _gpus(survey),
        *_plugin_library(survey),
        *(() if release is None else jetson_facts(release, survey)),
    )


def _jetpack(release: Release) -> Fact:
    name = "jetpack"
    oldest = list_jetpacks()[0]
    if release.too_old:
        detail = f"L4T {release.l4t} is older than JetPack {oldest.name}, and TensorRT {lowest_tensorrt()} is needed"
        return Fact(name=name, status="missing", detail=detail, remedy=f"flash JetPack {oldest.name} or newer")
    jetpack = release.jetpack
    if jetpack is None:
        what = f"L4T {release.l4t}" if release.l4t else "L4T of a version that cannot be read"
        return Fact(name=name, status="ok", detail=f"{what}, of a JetPack that edgeformer's table does not have")
    note = f"; {jetpack.note}" if jetpack.note else ""
    return Fact(name=name, status="ok", detail=f"{jetpack.name} (L4T {release.l4t}): {jetpack.contents}{note}")


def _backend(flavour: Flavour, release: Release | None) -> Fact:
    minimum, below = BACKEND_RANGES[flavour]
    remedy = install_command(flavour)
    backend = find_backend(flavour)
    if backend is None:
        detail = f"not installed; it {_SERVES[flavour]}"
        python = release.jetpack.python if flavour == "tensorrt" and release and release.jetpack else None
        if python and not _is_python(python):
            detail += f"; JetPack's is for Python {python}, and this is Python {platform.python_version()}"
            remedy += f", and run edgeformer with python{python} (python{python} -m venv --system-site-packages)"
        return Fact(name=flavour, status="missing", detail=detail, remedy=remedy)
    try:
        imported = probe_backend(backend)
        imported.require(minimum, below)
    except EnvironmentFault as error:
        detail = str(error) if backend.within(minimum, below) else missing_backend(flavour, minimum, below)
        return Fact(name=flavour, status="missing", detail=detail, remedy=remedy)
    detail = f"{imported.version} in {imported.path}"
    if imported.difference:
        detail += f"; {imported.difference}"
    if flavour != "tensorrt" or release is None:
        return Fact(name=flavour, status="ok", detail=detail)
    series = version_tuple(imported.version)[:2]
    if series in map(version_tuple, tensorrt_without_jetpack()):
        detail += f"; no JetPack brings TensorRT {'.'.join(map(str, series))}, so it is not made for Jetsons"
        return Fact(name=flavour, status="missing", detail=detail, remedy=remedy)
    jetpack = release.jetpack
    if jetpack is not None and jetpack.tensorrt is not None and version_tuple(jetpack.tensorrt)[:2] != series:
        detail += (
            f"; JetPack {jetpack.name} brings TensorRT {jetpack.tensorrt}, and this is another one: where pip "
            "installed it, it may not know this GPU"
        )
    return Fact(name=flavour, status="ok", detail=detail)


def _is_python(version: str) -> bool:
    return platform.python_version_tuple()[:2] == tuple(version.split("."))


def _cuda_toolkit() -> Fact:
    name = "cuda toolkit"
    nvcc = shutil.which("nvcc") or (str(_NVCC_FALLBACK) if _NVCC_FALLBACK.exists() else None)
    use = "only needed to compile the plugin library"
    remedy = "install the CUDA toolkit (https://developer.nvidia.com/cuda-downloads) and put its bin folder on PATH"
    if nvcc is None:
        return Fact(name=name, status="missing", detail=f"no nvcc on PATH; {use}", remedy=remedy)
    try:
        output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=_NVCC_SECONDS).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Fact(name=name, status="missing", detail=f"{nvcc} does not run ({error}); {use}", remedy=remedy)
    version = re.search(r"release (\d+\.\d+)", output)
    if version is None:
        return Fact(name=name, status="missing", detail=f"{nvcc} does not report its version; {use}", remedy=remedy)
    return Fact(name=name, status="ok", detail=f"{version.group(1)} ({nvcc})")


def _driver(survey: GpuSurvey) -> Fact:
    if survey.cuda_version is None:
        return Fact(
            name="driver",
            status="missing",
            detail=f"{survey.problem}; engines for RTX targets can be built without a driver, but none runs without it",
            remedy="on a machine with an NVIDIA GPU, install its driver (https://www.nvidia.com/drivers)",
        )
    version = f"{survey.driver_version}, " if survey.driver_version else ""
    return Fact(name="driver", status="ok", detail=f"{version}CUDA up to {survey.cuda_version}")


def _gpus(survey: GpuSurvey) -> Fact:
    if not survey.gpus:
        return Fact(
            name="gpu",
            status="missing",
            detail=f"{survey.problem}; needed to run and time engines, and to build them for Jetson and data centre",
            remedy="run edgeformer on a machine with a GPU; building for an RTX target needs none",
        )
    gpus = "; ".join(f"{gpu.name}, SM {gpu.sm}, {gpu.memory_bytes / 1e9:.1f} GB" for gpu in survey.gpus)
    return Fact(name="gpu", status="ok", detail=gpus)


def _plugin_library(survey: GpuSurvey) -> tuple[Fact, ...]:
    name = "plugin library"
    try:
        library = find_plugin_library()
    except EnvironmentFault as error:
        return (Fact(name=name, status="missing", detail=str(error), remedy=BUILD_COMMAND),)
    if library is None:
        return (Fact(name=name, status="missing", detail=missing_plugin_library(), remedy=BUILD_COMMAND),)
    metadata = library.metadata
    detail = (
        f"{metadata.version}, built with TensorRT {metadata.tensorrt_headers} headers and CUDA {metadata.cuda} "
        f"for {metadata.kernels} ({library.path})"
    )
    found = _runs_with_driver(Fact(name=name, status="ok", detail=detail), metadata.cuda, survey.cuda_version)
    aux = library.aux_path
    if aux is not None and not aux.is_file():
        detail = f"{aux} does not exist; TensorRT-RTX cannot load plugins without it"
        return (
            found,
            Fact(name="plugin library for TensorRT-RTX", status="missing", detail=detail, remedy=BUILD_COMMAND),
        )
    return (found,)


def _runs_with_driver(found: Fact, built: str, supported: str | None) -> Fact:
    """The fact as it is, or that the driver is too old: it runs its own major version of CUDA, or an older one."""
    if supported is None or version_tuple(built)[:1] <= version_tuple(supported)[:1]:
        return found
    major = version_tuple(supported)[0]
    return Fact(
        name=found.name,
        status="missing",
        detail=f"{found.detail}; the driver supports CUDA up to {supported} and cannot run it",
        remedy=f"install a newer driver, or build the library with a CUDA {major} toolkit: {BUILD_COMMAND}",
    )
