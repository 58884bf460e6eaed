"""The runtime as C and C++ programs get it: installed, found by CMake and pkg-config, run on ONNX Runtime."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeformer import __version__
from edgeformer.data import Preprocessing
from edgeformer.ops.library_files import RUNTIME
from edgeformer.pipeline import BuildResult
from tests.runtime_cpp.programs import LABELS, fails, logits, picture, run

pytestmark = [pytest.mark.slow, pytest.mark.whole, pytest.mark.usefixtures("with_onnx_runtime")]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "runtime"


@pytest.fixture(scope="module")
def programs(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, built outside of the tree against the installation."""
    folder = tmp_path_factory.mktemp("programs")
    shutil.copytree(EXAMPLES, folder / "sources")
    run(
        "cmake",
        "-S",
        folder / "sources",
        "-B",
        folder / "build",
        f"-DCMAKE_PREFIX_PATH={prefix}",
        "-DCMAKE_CXX_FLAGS=-Werror",
        "-DCMAKE_C_FLAGS=-Werror",
    )
    run("cmake", "--build", folder / "build")
    return folder / "build"


def test_a_cpp_program_classifies_pictures(programs: Path, bundle: BuildResult, tmp_path: Path) -> None:
    paths = [picture(tmp_path, f"{index}.ppm", (31 + 40 * index, 97), index) for index in range(3)]
    lines = run(programs / "classify", bundle.path, *paths).splitlines()
    image = bundle.manifest.application.image
    assert image is not None
    assert image.normalization == "mean_std"
    preprocessing = Preprocessing(
        image.height, image.width, image.mean, image.std, image.resize_mode, image.crop_fraction
    )
    outputs = logits(bundle, np.stack([preprocessing(Image.open(path)) for path in paths])).astype(np.float64)
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    for line, path, share in zip(lines, paths, shares, strict=True):
        best = np.argsort(-share, kind="stable")[:3]
        ranked = " ".join(f"{LABELS[index]} {share[index]:.4f}" for index in best)
        assert line == f"{path}: {ranked}"


def test_a_c_program_gets_the_bits_that_python_gets(programs: Path, bundle: BuildResult) -> None:
    first, second = run(programs / "embed", bundle.path).splitlines()
    assert re.fullmatch(r"biformer_nano, fp16, ONNX Runtime [\d.]+", first)
    shape = bundle.manifest.inputs[0].shape
    zeros = np.zeros([1, *(int(size) for size in shape[1:])], np.float32)
    # Nine digits name a float32, no more and no less.
    assert np.array_equal(np.array(second.split()[1:], np.float32), logits(bundle, zeros)[0])


@pytest.mark.parametrize("contexts", ["1", "4"])
def test_threads_do_not_disturb_each_other(programs: Path, bundle: BuildResult, contexts: str) -> None:
    output = run(programs / "many_threads", bundle.path, "8", "5", contexts)
    assert output == f"8 threads, 5 calls each, {contexts} contexts: 0 wrong results\n"


def test_a_program_says_what_is_wrong(programs: Path, bundle: BuildResult, tmp_path: Path) -> None:
    assert fails(programs / "classify") == (2, f"usage: {programs / 'classify'} BUNDLE PICTURE.ppm...\n")
    code, message = fails(programs / "classify", tmp_path / "none", tmp_path / "a.ppm")
    assert (code, message.partition(": ")[0]) == (1, "EF701")
    (tmp_path / "a.ppm").write_bytes(b"P6\n1000 1000\n255\n")
    code, message = fails(programs / "classify", bundle.path, tmp_path / "a.ppm")
    assert (code, message) == (1, f"{tmp_path / 'a.ppm'}: not a binary PPM file of 8 bits\n")


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
def test_pkg_config_finds_the_runtime(prefix: Path, bundle: BuildResult, tmp_path: Path) -> None:
    environment = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    assert run("pkg-config", "--modversion", "edgeformer", environment=environment).strip() == __version__
    flags = run("pkg-config", "--cflags", "--libs", "edgeformer", environment=environment).split()
    program = tmp_path / "embed"
    run("cc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", EXAMPLES / "embed.c", "-o", program, *flags)
    output = run(program, bundle.path, environment={"LD_LIBRARY_PATH": str(prefix / "lib")})
    assert output.startswith("biformer_nano, fp16, ONNX Runtime ")


def test_cmake_says_which_part_is_missing(prefix: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    text = (
        "cmake_minimum_required(VERSION 3.22)\nproject(p LANGUAGES CXX)\nfind_package(edgeformer REQUIRED COMPONENTS "
    )
    (project / "CMakeLists.txt").write_text(f"{text}runtime)\n")
    command: list[str | Path] = ["cmake", "-S", project, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"]
    run(*command)
    (project / "CMakeLists.txt").write_text(f"{text}nonsense)\n")
    _, message = fails(*command)
    assert "nonsense" in message


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("cc", ["-std=c99", "-pedantic", "-x", "c"]),
        ("c++", ["-std=c++17", "-pedantic", "-fno-exceptions", "-fno-rtti", "-x", "c++"]),
        ("c++", ["-std=c++20", "-x", "c++"]),
    ],
    ids=["C99", "C++17 without exceptions", "C++20"],
)
def test_the_headers_stand_alone(prefix: Path, tmp_path: Path, compiler: str, options: list[str]) -> None:
    header = "edgeformer.h" if compiler == "cc" else "model.hpp"
    source = tmp_path / "source.txt"
    source.write_text(f"#include <edgeformer/{header}>\n#include <edgeformer/{header}>\n")
    run(compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{prefix / 'include'}", *options, source)


def test_the_library_needs_and_exports_only_what_is_its(prefix: Path) -> None:
    library = prefix / "lib" / RUNTIME.name
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", library)))
    allowed = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0"}
    assert needed <= allowed | {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    exported = set(re.findall(r" T (\w+)", run("nm", "--dynamic", "--defined-only", library)))
    header = (ROOT / "runtime" / "include" / "edgeformer" / "edgeformer.h").read_text()
    assert exported == set(re.findall(r"^EDGEFORMER_API [^(;]*?(\w+)\(", header, re.MULTILINE))


def test_the_library_has_the_kernel_for_every_gpu(runtime_library: Path, prefix: Path) -> None:
    metadata = runtime_library.with_name("libedgeformer_plugins.json")
    if not metadata.exists():
        pytest.skip("it was configured without nvcc")
    content = (prefix / "lib" / RUNTIME.name).read_bytes()
    architectures = json.loads(metadata.read_text())["architectures"]
    assert architectures
    # nvcc stores one ELF image per architecture, with its name in it, where cuobjdump looks.
    for architecture in architectures:
        assert f"sm_{architecture}".encode() in content
    assert ".nv_fatbin" in run("readelf", "--sections", "--wide", prefix / "lib" / RUNTIME.name)
