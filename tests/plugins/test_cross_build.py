"""The library cross-compiled for Jetson: for the right processor, GPU and CUDA, and loadable on JetPack's Ubuntu."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugins.conftest import ROOT
from tests.plugins.test_library import dynamic_entries, exported_symbols, output_of
from tests.plugins.test_registering import ABIS, Abi, registering_libraries

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Jetson:
    """What a JetPack has.

    Attributes:
        preset: of CMakePresets.json.
        sm: GPU to compile for; one, to be quick.
        cuda: its CUDA release, at most.
        elf: version of the machine-code format that the CUDA release writes and its driver reads (ABI of the ELF file).
        glibc: newest C library it may need.
        glibcxx: newest C++ library it may need.
    """

    preset: str
    sm: int
    cuda: str
    elf: int
    glibc: tuple[int, ...]
    glibcxx: tuple[int, ...]


# JetPack 6 is Ubuntu 22.04, JetPack 7 is Ubuntu 24.04.
ORIN = Jetson("jetson-orin", 87, "12.6", 7, (2, 35), (3, 4, 30))
THOR = Jetson("jetson", 110, "13.0", 8, (2, 39), (3, 4, 33))


@pytest.fixture(scope="module", params=[ORIN, THOR], ids=lambda jetson: jetson.preset)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Jetson, Path]:
    """The library, built by its preset for one GPU in a folder of its own."""
    jetson: Jetson = request.param
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("no aarch64-linux-gnu-g++ (Debian: apt-get install g++-aarch64-linux-gnu)")
    if shutil.which("nvcc") is None and "CUDACXX" not in os.environ:
        pytest.skip("no nvcc")
    fetch = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fetch_cuda_runtime.py"), jetson.cuda], capture_output=True, text=True
    )
    if fetch.returncode != 0 and os.environ.get("CI") != "true":
        pytest.skip(f"the CUDA runtime for aarch64 is not to be had: {fetch.stderr}")
    assert fetch.returncode == 0, fetch.stderr
    folder = tmp_path_factory.mktemp(jetson.preset)
    architectures = f"-DEDGEFORMER_CUDA_ARCHITECTURES={jetson.sm}-real"
    environment = {name: value for name, value in os.environ.items() if name != "CUDACXX"}
    for command in (
        [
            "cmake",
            "-S",
            str(ROOT),
            "--preset",
            jetson.preset,
            "-B",
            ".",
            architectures,
            "-DEDGEFORMER_WARNINGS_AS_ERRORS=ON",
        ],
        ["cmake", "--build", ".", "--target", "edgeformer_library"],
    ):
        # CMake tries to run what it compiled for aarch64; the shell takes it for a script, which leaves a file here.
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
    return jetson, folder / "libedgeformer_plugins.so"


def newest(library: Path, name: str) -> tuple[int, ...]:
    """The newest version of these symbols that the library needs."""
    needed = re.findall(rf"\b{name}_([0-9.]+)", output_of("readelf", "--version-info", "--wide", str(library)))
    return max((tuple(map(int, version.split("."))) for version in needed), default=())


def test_it_is_a_library_for_aarch64(built: tuple[Jetson, Path], plugin_library: Path) -> None:
    _, library = built
    header = output_of("readelf", "--file-header", str(library))
    assert re.search(r"Machine: +AArch64", header)
    assert re.search(r"Type: +DYN", header)
    assert exported_symbols(library) == exported_symbols(plugin_library)


def test_it_needs_nothing_that_jetpack_lacks(built: tuple[Jetson, Path]) -> None:
    jetson, library = built
    allowed = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1"}
    if jetson is ORIN:
        allowed.add("libcudart.so.12")
    assert set(dynamic_entries(library, "NEEDED")) <= allowed
    assert dynamic_entries(library, "RUNPATH") == dynamic_entries(library, "RPATH") == []
    assert (2, 17) <= newest(library, "GLIBC") <= jetson.glibc
    assert (3, 4) <= newest(library, "GLIBCXX") <= jetson.glibcxx


@pytest.mark.parametrize("abi", list(ABIS.values()), ids=list(ABIS))
def test_the_libraries_for_hosts_are_built_with_it(built: tuple[Jetson, Path], abi: Abi) -> None:
    jetson, plugin_library = built
    library = plugin_library.with_name(abi.library)
    assert library in registering_libraries(plugin_library)
    assert re.search(r"Machine: +AArch64", output_of("readelf", "--file-header", str(library)))
    needed = dynamic_entries(library, "NEEDED")
    beside = {f"$ORIGIN/{name}" for name in abi.beside}
    assert {abi.soname} | beside <= set(needed)
    allowed = {"libc.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1"}
    assert set(needed) <= allowed | beside | {abi.soname}
    assert dynamic_entries(library, "RUNPATH") == dynamic_entries(library, "RPATH") == []
    assert newest(library, "GLIBC") <= jetson.glibc
    assert newest(library, "GLIBCXX") <= jetson.glibcxx


def test_its_metadata_says_what_it_is(built: tuple[Jetson, Path]) -> None:
    jetson, library = built
    metadata = json.loads(library.with_suffix(".json").read_text())
    assert metadata["cpu"] == "aarch64"
    assert metadata["cuda"] == jetson.cuda
    assert metadata["architectures"] == [str(jetson.sm)]
    assert metadata["ptx"] == []


def test_its_machine_code_is_of_the_drivers_time(built: tuple[Jetson, Path]) -> None:
    """A GPU's ELF images lie in the library as they are: 64-bit, little-endian, OS/ABI of CUDA, ABI version."""
    jetson, library = built
    versions = re.findall(rb"\x7fELF\x02\x01\x01[\x33\x41](.)", library.read_bytes(), re.DOTALL)
    assert {version[0] for version in versions} == {jetson.elf}
