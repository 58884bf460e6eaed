"""``cmake --install``: what a C program finds, and what a wheel holds.

The library that a build tree holds is installed by the rules of the sources as they are now: what is configured here is
not compiled again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeformer
from edgeformer.machine.backends import version_tuple
from edgeformer.machine.plugin_library import read_plugin_library
from edgeformer.ops.library_files import LIBRARY_NAME, PLUGINS, RTX_ALIAS_NAME, RUNTIME, metadata_of, rtx_alias_of
from tests.plugins.conftest import ROOT
from tests.plugins.test_library import dynamic_entries
from tests.plugins.test_registering import ABIS, registering_libraries

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "op_from_c"
METADATA_NAME = metadata_of(Path(LIBRARY_NAME)).name
LIBRARIES = (LIBRARY_NAME, METADATA_NAME, RTX_ALIAS_NAME, *(abi.library for abi in ABIS.values()))


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def install(plugin_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Configures the sources with options, puts the built libraries where a build would, and installs them."""

    def install(*options: str) -> Path:
        build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
        settings = {
            "CMAKE_BUILD_TYPE": "Release",
            "EDGEFORMER_BUILD_TESTS": "OFF",
            "EDGEFORMER_CUDA_ARCHITECTURES": "86-real",  # one, to be quick
        }
        run("cmake", "-S", ROOT, "-B", build, *(f"-D{name}={value}" for name, value in settings.items()), *options)
        beside = [plugin_library.with_name(name) for name in (RUNTIME.name, "edgeformer-run")]
        for built in (plugin_library, rtx_alias_of(plugin_library), *registering_libraries(plugin_library), *beside):
            shutil.copy(built, build)
        run("cmake", "--install", build, "--prefix", prefix)
        return prefix

    return install


@pytest.fixture(scope="module")
def prefix(install: Callable[..., Path]) -> Path:
    """An installation for C and C++ programs."""
    return install("-DCMAKE_INSTALL_LIBDIR=lib")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_a_c_program_needs_is_installed(prefix: Path, plugin_library: Path) -> None:
    package = {"Config.cmake", "ConfigVersion.cmake"}
    package |= {f"-{part}{ending}.cmake" for part in ("plugins", "runtime") for ending in ("", "-release")}
    assert files_below(prefix) == {
        "bin/edgeformer-run",
        "include/edgeformer/bi_level_routing_attention.h",
        "include/edgeformer/common/c_status.h",
        "include/edgeformer/common/c_types.h",
        "include/edgeformer/edgeformer.h",
        "include/edgeformer/model.hpp",
        f"lib/{RUNTIME.name}",
        "lib/pkgconfig/edgeformer.pc",
        *(f"lib/edgeformer/{name}" for name in LIBRARIES),
        *(f"lib/cmake/edgeformer/edgeformer{name}" for name in package),
    }
    installed = read_plugin_library(prefix / "lib" / "edgeformer" / LIBRARY_NAME)
    assert installed.path.read_bytes() == plugin_library.read_bytes()
    assert installed.metadata.version == edgeformer.__version__
    assert installed.aux_path is not None
    assert dynamic_entries(installed.aux_path, "NEEDED")[0] == f"{RTX_ALIAS_NAME}.1"
    assert dynamic_entries(installed.aux_path, "RUNPATH") == dynamic_entries(installed.aux_path, "RPATH") == []
    for own, built in zip(registering_libraries(installed.path), registering_libraries(plugin_library), strict=True):
        assert own.read_bytes() == built.read_bytes()


def test_nothing_installed_points_to_the_sources(prefix: Path) -> None:
    texts = [path for path in prefix.rglob("*") if path.suffix in (".cmake", ".h", ".hpp", ".json", ".pc")]
    assert len(texts) == 13
    assert [path for path in texts if str(ROOT) in path.read_text()] == []


def test_a_wheel_holds_the_library_and_nothing_else(install: Callable[..., Path]) -> None:
    wheel = files_below(install("-DSKBUILD=2"))
    plugins = {f"edgeformer/{PLUGINS.wheel_folder}/{name}" for name in LIBRARIES}
    assert wheel == plugins | {f"edgeformer/{RUNTIME.wheel_folder}/{RUNTIME.name}"}


@pytest.fixture(scope="module", params=["ON", "OFF"], ids=["planning alone", "with the CUDA runtime"])
def program(request: pytest.FixtureRequest, prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/op_from_c, built with strict C99 against a copy of the installation, for it may be moved."""
    moved, build = tmp_path_factory.mktemp("moved") / "edgeformer", tmp_path_factory.mktemp("op_from_c")
    shutil.copytree(prefix, moved)
    without_cuda = f"-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit={request.param}"
    run("cmake", "-S", EXAMPLE, "-B", build, f"-DCMAKE_PREFIX_PATH={moved}", "-DCMAKE_C_FLAGS=-Werror", without_cuda)
    run("cmake", "--build", build)
    return build / "op_from_c"


def test_a_c_program_plans_the_op_and_runs_it_where_there_is_a_gpu(program: Path) -> None:
    workspace, plan, refusal, last = run(program).splitlines()
    # Means of 49 regions, 2 * 64 float32 each, on to the next multiple of 256, and one region for each.
    assert workspace == "workspace: 25284 bytes, routing at 25088"
    assert re.fullmatch(r"plan for Jetson AGX Orin: \w+, \d+ blocks of \d+ warps, \d+ bytes of shared memory", plan)
    assert re.match(r"topk=50: status 1: edgeformerBiLevelRoutingAttentionWorkspace: .*topk=50.*49", refusal)
    assert re.match(r"not run: no GPU|run: 3136 tokens, largest error ", last)


def test_a_c_program_loads_the_installed_library(program: Path, prefix: Path) -> None:
    assert dynamic_entries(program, "NEEDED")[0] == LIBRARY_NAME
    (folder,) = {path for entry in dynamic_entries(program, "RUNPATH") for path in entry.split(":") if "moved" in path}
    assert files_below(Path(folder)) == files_below(prefix / "lib" / "edgeformer")


CONSUMER = """
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES CXX)
find_package(edgeformer ${WANTED} REQUIRED)
file(GENERATE OUTPUT targets.json CONTENT
     "{\\"version\\": \\"${edgeformer_VERSION}\\", \\"plugins\\": \\"$<TARGET_FILE:edgeformer::plugins>\\", \\
\\"alias\\": \\"$<TARGET_FILE:edgeformer::tensorrt_rtx_alias>\\", \\
\\"for_10\\": \\"$<TARGET_FILE:edgeformer::register_tensorrt10>\\", \\
\\"for_11\\": \\"$<TARGET_FILE:edgeformer::register_tensorrt11>\\", \\
\\"for_rtx\\": \\"$<TARGET_FILE:edgeformer::register_tensorrt_rtx>\\"}")
"""


@pytest.fixture
def consumer(prefix: Path, tmp_path: Path, run_cmake: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """Configures a project that asks for a version."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "CMakeLists.txt").write_text(CONSUMER)
    return lambda wanted: run_cmake(f"-DCMAKE_PREFIX_PATH={prefix}", f"-DWANTED={wanted}")


def test_the_libraries_are_targets(consumer: Callable[..., tuple[int, str]], prefix: Path, tmp_path: Path) -> None:
    code, output = consumer("")
    assert code == 0, output
    folder = prefix / "lib" / "edgeformer"
    assert json.loads((tmp_path / "build" / "targets.json").read_text()) == {
        "version": edgeformer.__version__,
        "plugins": str(folder / LIBRARY_NAME),
        "alias": str(folder / RTX_ALIAS_NAME),
        "for_10": str(folder / ABIS["tensorrt10"].library),
        "for_11": str(folder / ABIS["tensorrt11"].library),
        "for_rtx": str(folder / ABIS["tensorrt_rtx"].library),
    }


MAJOR, MINOR, PATCH = version_tuple(edgeformer.__version__)


@pytest.mark.parametrize(
    ("wanted", "served"),
    [
        (f"{MAJOR}.{MINOR}", True),
        (edgeformer.__version__, True),
        (f"{MAJOR}.{MINOR}.{PATCH + 1}", False),
        (f"{MAJOR}.{MINOR + 1}", False),
        (f"{MAJOR + 1}.{MINOR}", False),
    ],
)
def test_only_the_same_minor_version_serves(
    consumer: Callable[..., tuple[int, str]], wanted: str, served: bool
) -> None:
    code, output = consumer(wanted)
    assert (code == 0) is served, output
    if not served:
        assert f'compatible with requested version "{wanted}"' in " ".join(output.split())
