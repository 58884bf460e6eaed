"""The C++ preprocessing, built for the CPU; the runtime as it is installed, and a bundle for it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from edgeformer.inference.backend_libraries import onnx_runtime_library
from edgeformer.ops.library_files import BUILD_COMMAND, RUNTIME, development_builds, searched_places
from edgeformer.pipeline import BuildResult, build
from tests.runtime_cpp import preprocessing
from tests.runtime_cpp.programs import LABELS, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def preprocessing_build() -> Path:
    """The folder of the newest build of ``runtime/tests/preprocessing``."""
    pattern = "*/runtime/tests/preprocessing/libedgeformer_emulated_preprocessing.so"
    newest = max((ROOT / "build").glob(pattern), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        pytest.skip(f"build/{pattern} is not built: {BUILD_COMMAND}")
    return newest.parent


@pytest.fixture(scope="session")
def library(preprocessing_build: Path) -> ctypes.CDLL:
    """The host's run, and the kernel on the emulation."""
    return preprocessing.load(preprocessing_build / "libedgeformer_emulated_preprocessing.so")


@pytest.fixture(scope="session")
def runtime_library() -> Path:
    """The runtime library of the newest build tree."""
    builds = development_builds(RUNTIME)
    if not builds:
        pytest.skip(f"no build tree has the runtime library ({searched_places(RUNTIME)}): {BUILD_COMMAND}")
    return builds[0]


@pytest.fixture(scope="session")
def prefix(runtime_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation, moved after it was made."""
    folder = tmp_path_factory.mktemp("installation")
    run("cmake", "--install", runtime_library.parent, "--prefix", folder / "first", "--component", "runtime")
    run("cmake", "--install", runtime_library.parent, "--prefix", folder / "first", "--component", "development")
    return (folder / "first").rename(folder / "moved")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """A bundle of random weights for seven classes; its engine could only be built on the device."""
    folder = tmp_path_factory.mktemp("bundle")
    labels = folder / "labels.txt"
    labels.write_text("\n".join(LABELS))
    return build(
        "biformer_nano",
        random_weights=True,
        overrides={"num_classes": len(LABELS)},
        labels=labels,
        target="jetson-agx-orin",
        output=folder / "bundle",
    )


@pytest.fixture
def with_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime from Python's package, as a user of a virtual environment names it."""
    library = onnx_runtime_library()
    assert library is not None
    monkeypatch.setenv("EDGEFORMER_ONNXRUNTIME_LIBRARY", str(library))
