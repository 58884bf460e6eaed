"""Building the kernels for one GPU, without TensorRT's headers where there are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernel_lab import build
from benchmarks.kernel_lab.shapes import TABLE
from edgeformer.errors import EnvironmentFault
from edgeformer.ops import cuda
from edgeformer.ops.library import load_library


def test_sources_without_tensorrt_are_the_kernels_and_the_c_interface() -> None:
    names = {path.name for path in build.sources_without_tensorrt()}
    assert {"c_api.cpp", "run.cpp", "attention.cu", "region_mean.cu", "routing.cu"} <= names
    assert not names & {"plugin.cpp", "registration.cpp", "logging.cpp"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_alone_builds_a_library(tmp_path: Path) -> None:
    path, route = build.build_library(87, route="nvcc", folder=tmp_path)
    library = load_library(path)
    assert route == "nvcc"
    assert library.takes_device_memory
    shape = TABLE[0]
    orin = cuda.Device(compute_capability=87, max_shared_bytes=166912, multiprocessors=16)
    found = cuda.plan(shape.qkv_shape(1), np.float16, shape.attributes(), device=orin, library=library)
    assert found.variant in found.variants
    built = path.stat().st_mtime_ns
    assert build.build_library(87, route="nvcc", folder=tmp_path)[0].stat().st_mtime_ns == built


def test_build_faults_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\necho 'error: no such architecture'\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CUDACXX", str(compiler))
    with pytest.raises(EnvironmentFault, match=r"could not be built: .*compute_99(.|\n)*no such architecture"):
        build.build_library(99, route="nvcc", folder=tmp_path / "build")


def test_no_nvcc_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CUDACXX", raising=False)
    with pytest.raises(EnvironmentFault, match=r"no nvcc found .*--library"):
        build.find_nvcc()
