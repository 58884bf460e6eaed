"""CMake's decisions: where TensorRT is looked for, which GPUs are compiled for, what is said when a part is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeformer.engine.targets import list_targets
from edgeformer.machine.backends import version_tuple
from edgeformer.machine.jetpack import list_jetpacks
from edgeformer.machine.plugin_library import PluginMetadata
from tests.plugins.conftest import ROOT

Cmake = Callable[..., tuple[int, str]]


def write_tensorrt(root: Path, version: tuple[int, int, int], library_version: str | None = None) -> None:
    """A TensorRT install as far as CMake looks at it."""
    include = root / "include"
    include.mkdir(parents=True)
    (include / "NvInferRuntime.h").touch()
    names = zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)
    # As in 10.14: the numbers stand in TRT_..., and NV_TENSORRT_... refers to them.
    lines = [f"#define TRT_{name}_ENTERPRISE {number}" for name, number in names]
    lines.append("#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< TensorRT major version.")
    (include / "NvInferVersion.h").write_text("\n".join(lines) + "\n")
    if library_version:
        (root / "lib").mkdir()
        (root / "lib" / f"libnvinfer.so.{library_version}").touch()
        (root / "lib" / "libnvinfer.so").symlink_to(f"libnvinfer.so.{library_version}")


@pytest.fixture
def finder_project(tmp_path: Path) -> None:
    """A project that does nothing but look for TensorRT."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\n"
        "project(finder LANGUAGES NONE)\n"
        f'list(APPEND CMAKE_MODULE_PATH "{ROOT / "cmake"}")\n'
        "find_package(TensorRT ${WANTED})\n"
        'message(STATUS "found=${TensorRT_FOUND} version=${TensorRT_VERSION} include=${TensorRT_INCLUDE_DIR}")\n'
        "if(TARGET TensorRT::nvinfer)\n"
        '  message(STATUS "library target")\n'
        "endif()\n"
    )


@pytest.mark.usefixtures("finder_project")
class TestFindTensorRT:
    def test_root_with_headers_alone(self, run_cmake: Cmake, tmp_path: Path) -> None:
        write_tensorrt(tmp_path / "trt", (10, 3, 0))
        code, output = run_cmake(f"-DTENSORRT_ROOT={tmp_path / 'trt'}")
        assert code == 0
        assert f"found=TRUE version=10.3.0 include={tmp_path / 'trt' / 'include'}" in output
        assert "library target" not in output

    def test_environment_variable(self, run_cmake: Cmake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_tensorrt(tmp_path / "trt", (11, 4, 2), "11.4.2")
        monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path / "trt"))
        code, output = run_cmake()
        assert code == 0
        assert "version=11.4.2" in output
        assert "library target" in output
        assert "disagree" not in output

    def test_headers_and_library_that_disagree(self, run_cmake: Cmake, tmp_path: Path) -> None:
        write_tensorrt(tmp_path / "trt", (10, 14, 1), "10.3.0")
        code, output = run_cmake(f"-DTENSORRT_ROOT={tmp_path / 'trt'}")
        assert code == 0
        words = " ".join(output.split())
        assert "TensorRT headers and library disagree" in words
        assert "10.14.1" in words
        assert "is 10.3.0" in words

    def test_failure_names_every_path(self, run_cmake: Cmake, tmp_path: Path) -> None:
        code, output = run_cmake(f"-DTENSORRT_ROOT={tmp_path / 'nowhere'}", "-DWANTED=99;REQUIRED")
        assert code != 0
        for path in (tmp_path / "nowhere" / "include", Path("/usr/local/tensorrt/include"), Path("/opt/tensorrt")):
            assert str(path) in output
        assert "third_party/tensorrt/include" in output
        assert "scripts/fetch_tensorrt_headers.py" in output


def test_without_nvcc_configuring_says_what_is_lost(run_cmake: Cmake, tmp_path: Path) -> None:
    write_tensorrt(tmp_path / "trt", (10, 14, 1))
    code, output = run_cmake(
        "-DCMAKE_CUDA_COMPILER=NOTFOUND",
        "-DEDGEFORMER_BUILD_TESTS=OFF",
        f"-DTENSORRT_ROOT={tmp_path / 'trt'}",
        source=ROOT,
    )
    assert code == 0
    words = " ".join(output.split())
    assert "The TensorRT plugin library will not be built. Missing: nvcc (CUDA toolkit >= 12.2)" in words
    assert "--no-plugin" in words


def fake_nvcc(folder: Path, *codes: int) -> Path:
    """An nvcc that knows these architectures."""
    compiler = folder / "nvcc"
    compiler.write_text("#!/bin/sh\nprintf '" + "".join(f"sm_{code}\\n" for code in codes) + "'\n")
    compiler.chmod(0o755)
    return compiler


@pytest.fixture
def run_architectures(run_cmake: Cmake, tmp_path: Path) -> Callable[[str], tuple[int, str]]:
    """Runs a line of CMake with the functions of CudaArchitectures.cmake."""

    def run(line: str) -> tuple[int, str]:
        project = tmp_path / "project"
        project.mkdir()
        (project / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.22)\n"
            "project(architectures LANGUAGES NONE)\n"
            f'include("{ROOT / "cmake" / "CudaArchitectures.cmake"}")\n'
            f"{line}\n"
            'message(STATUS "result=${result} ptx=${ptx}")\n'
        )
        return run_cmake()

    return run


@pytest.mark.parametrize(
    ("known", "architectures"),
    [
        (
            (75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121),
            "75-real;80;86-real;87-real;89-real;90-real;110-real;120-real;121",
        ),
        ((52, 72, 75, 80, 86, 87, 89, 90), "75-real;80;86-real;87-real;89-real;90"),
        ((75, 80), "75-real;80"),
        ((72, 75), "75"),
    ],
    ids=["13.0", "12.6", "80 is the newest", "no 80"],
)
def test_default_architectures_are_those_of_the_targets(
    run_architectures: Callable[[str], tuple[int, str]], tmp_path: Path, known: tuple[int, ...], architectures: str
) -> None:
    compiler, table = fake_nvcc(tmp_path, *known), ROOT / "edgeformer" / "engine" / "targets.json"
    code, output = run_architectures(f'edgeformer_default_architectures("{compiler}" "{table}" result)')
    assert code == 0
    assert f"result={architectures} ptx=\n" in output


def test_the_default_serves_every_target() -> None:
    """The first case above is the whole table: machine code for those that have it there, PTX for the others."""
    machine_code, ptx = (75, 80, 86, 87, 89, 90, 110, 120, 121), (80, 121)
    library = PluginMetadata(
        version="", tensorrt_headers="", cuda="13.0", cpu="x86_64", architectures=machine_code, ptx=ptx
    )
    served = {(target.name, sm): library.kernels_for(sm) for target in list_targets() for sm in target.sms}
    assert served == {(target.name, sm): target.kernels for target in list_targets() for sm in target.sms}
    # Nothing is compiled that no target has.
    assert {sm for target in list_targets() for sm in target.sms} == {*machine_code, 100}


def test_the_presets_are_those_of_the_jetpacks() -> None:
    """The presets for Orin and for JetPack 7 have the CUDA and the GPUs of the table; DGX Spark takes the latter's."""
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    options = {preset["name"]: preset["cacheVariables"] for preset in presets}
    spark = next(target.sm for target in list_targets() if target.name == "dgx-spark")
    for name, major, more in (("jetson-orin", "6", set()), ("jetson", "7", {spark})):
        jetpacks = [jetpack for jetpack in list_jetpacks() if jetpack.name.startswith(f"{major}.")]
        releases = [jetpack.cuda for jetpack in jetpacks if jetpack.cuda]
        # A driver loads what its own CUDA or an older one has made.
        assert options[name]["EDGEFORMER_CUDA_RELEASE"] == min(releases, key=version_tuple)
        sms = sorted({sm for jetpack in jetpacks for sm in jetpack.sms} | more)
        assert options[name]["EDGEFORMER_CUDA_ARCHITECTURES"] == ";".join(f"{sm}-real" for sm in sms)


def test_an_nvcc_that_knows_no_target(run_architectures: Callable[[str], tuple[int, str]], tmp_path: Path) -> None:
    compiler, table = fake_nvcc(tmp_path, 52, 72), ROOT / "edgeformer" / "engine" / "targets.json"
    code, output = run_architectures(f'edgeformer_default_architectures("{compiler}" "{table}" result)')
    assert code != 0
    assert "knows none of the GPUs" in " ".join(output.split())
    assert "EDGEFORMER_CUDA_ARCHITECTURES" in output


@pytest.mark.parametrize(
    ("architectures", "machine_code", "ptx"),
    [
        ("75-real;80;121", "75;80;121", "80;121"),
        ("87-real", "87", ""),
        ("90-virtual", "", "90"),
        ("120a-real;90a;80-real;80-virtual", "120a;90a;80", "90a;80"),
    ],
)
def test_what_a_choice_of_architectures_holds(
    run_architectures: Callable[[str], tuple[int, str]], architectures: str, machine_code: str, ptx: str
) -> None:
    code, output = run_architectures(f'edgeformer_split_architectures("{architectures}" result ptx)')
    assert code == 0
    assert f"result={machine_code} ptx={ptx}\n" in output
