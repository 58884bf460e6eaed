"""Building the kernels for one GPU: with CMake and the plugin, or nvcc alone where there are no TensorRT headers."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeformer.errors import EnvironmentFault
from edgeformer.ops.library_files import LIBRARY_NAME

__all__ = ["ROOT", "build_library", "find_nvcc", "sources_without_tensorrt"]

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def build_library(sm: int, *, route: str = "auto", folder: Path | None = None) -> tuple[Path, str]:
    """The library with kernels for one GPU.

    Args:
        sm: compute capability times ten.
        route: "cmake", "nvcc", or "auto": CMake where it and TensorRT's headers are at hand.
        folder: where to build; None: ``build/gpu_check/<sm>``, where nobody looks for the library of
            this installation.

    Returns:
        The library's path, and the route taken.

    Raises:
        EnvironmentFault: a tool is missing, or a source does not compile; the end of its output is in the message.
    """
    folder = folder or ROOT / "build" / "gpu_check" / str(sm)
    nvcc = find_nvcc()
    if route == "auto":
        headers = [*(PLUGINS.parent / "third_party").glob("tensorrt*/include/NvInferRuntime.h")]
        if os.environ.get("TENSORRT_ROOT"):
            headers += Path(os.environ["TENSORRT_ROOT"]).glob("include/NvInferRuntime.h")
        route = "cmake" if shutil.which("cmake") and headers else "nvcc"
    if route == "cmake":
        return _build_with_cmake(sm, folder, nvcc), route
    return _build_with_nvcc(sm, folder, nvcc), route


def find_nvcc() -> Path:
    """The CUDA compiler.

    Raises:
        EnvironmentFault: there is none.
    """
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    for candidate in (os.environ.get("CUDACXX"), shutil.which("nvcc"), f"{home}/bin/nvcc"):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise EnvironmentFault(
        "EF610",
        f"no nvcc found (looked at $CUDACXX, on PATH and in {home}/bin): install the CUDA toolkit, or give a compiled "
        "library with --library",
    )


def sources_without_tensorrt() -> list[Path]:
    """The kernels and the C interface: every source that includes no TensorRT header, even indirectly."""
    sources = [path for pattern in ("*.cpp", "*/*.cpp", "*/*.cu") for path in sorted(PLUGINS.glob(pattern))]
    return [
        source for source in sources if PLUGINS / "tests" not in source.parents and not _needs_tensorrt(source, set())
    ]


def _needs_tensorrt(source: Path, seen: set[Path]) -> bool:
    if source in seen:
        return False
    seen.add(source)
    for kind, name in _INCLUDE.findall(source.read_text(encoding="utf-8")):
        if name.startswith("NvInfer"):
            return True
        included = PLUGINS / name
        if kind == '"' and included.is_file() and _needs_tensorrt(included, seen):
            return True
    return False


def _run(command: Sequence[str | Path]) -> None:
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-30:])
        raise EnvironmentFault("EF612", f"the kernels could not be built: {' '.join(words)}\n{tail}")


def _build_with_cmake(sm: int, folder: Path, nvcc: Path) -> Path:
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CUDA_COMPILER": nvcc,
        "EDGEFORMER_BUILD_TESTS": "OFF",
        "EDGEFORMER_CUDA_ARCHITECTURES": f"{sm}-real",
        "EDGEFORMER_FETCH_TENSORRT_HEADERS": "OFF",
    }
    _run(("cmake", "-S", ROOT, "-B", folder, *(f"-D{name}={value}" for name, value in settings.items())))
    _run(("cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1), "--target", "edgeformer_library"))
    library = folder / LIBRARY_NAME
    if not library.is_file():
        raise EnvironmentFault(
            "EF612", f"CMake ended without {library}: see its output with cmake -S {ROOT} -B {folder}"
        )
    return library


def _build_with_nvcc(sm: int, folder: Path, nvcc: Path) -> Path:
    """One object a source, side by side, then one shared library with the exports of the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    target = f"-gencode=arch=compute_{sm},code=sm_{sm}"
    flags = ("-std=c++17", "-O3", target, "-Xcompiler=-fPIC,-fvisibility=hidden", f"-I{PLUGINS}")
    sources = sources_without_tensorrt()
    headers = sorted(path for pattern in ("**/*.h", "**/*.cuh") for path in PLUGINS.glob(pattern))
    state = hashlib.sha256(repr((flags, str(nvcc))).encode())
    for path in (*sources, *headers):
        state.update(path.read_bytes())
    library, stamp = folder / LIBRARY_NAME, folder / "sources.sha256"
    if library.is_file() and stamp.is_file() and stamp.read_text() == state.hexdigest():
        return library
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [
            pool.submit(_run, (nvcc, *flags, "-c", source, "-o", compiled))
            for source, compiled in zip(sources, objects, strict=True)
        ]
        for job in jobs:
            job.result()
    _run((nvcc, "-shared", "-cudart=static", "-Xlinker=--no-undefined", "-o", library, *objects))
    stamp.write_text(state.hexdigest())
    return library
