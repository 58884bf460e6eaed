"""The libraries that register the plugins as they are opened, in TensorRT-RTX and in doubles of TensorRT 10 and 11."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeformer.machine.plugin_library import read_plugin_library
from edgeformer.ops.library_files import LIBRARY_NAME, RTX_ALIAS_NAME, rtx_alias_of
from edgeformer.records.terms import FLAVOURS
from tests.plugins.conftest import ROOT
from tests.plugins.test_library import dynamic_entries, exported_symbols, output_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Abi:
    """One TensorRT, as a plugin library meets it.

    Attributes:
        library: the library that registers the plugins with it.
        soname: of TensorRT's library.
        double: the registry of its double (plugins/tests/registering/registries.h); None for the real one.
        slot: where getAllCreators stands in the registry's table.
        beside: what the library opens from its own folder.
    """

    library: str
    soname: str
    double: str | None
    slot: int
    beside: tuple[str, ...]


ABIS = {
    "tensorrt10": Abi("libedgeformer_register_tensorrt10.so", "libnvinfer.so.10", "RegistryOf10", 13, (LIBRARY_NAME,)),
    "tensorrt11": Abi("libedgeformer_register_tensorrt11.so", "libnvinfer.so.11", "RegistryOf11", 9, (LIBRARY_NAME,)),
    "tensorrt_rtx": Abi(
        "libedgeformer_register_tensorrt_rtx.so",
        "libtensorrt_rtx.so.1",
        None,
        9,
        (RTX_ALIAS_NAME, LIBRARY_NAME),
    ),
}


@pytest.fixture(scope="module", params=list(ABIS.values()), ids=list(ABIS))
def abi(request: pytest.FixtureRequest) -> Abi:
    one: Abi = request.param
    return one


@pytest.fixture(scope="module")
def folder(plugin_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libraries, alone in a folder, as a bundle or a wheel has them."""
    folder = tmp_path_factory.mktemp("libraries")
    for path in (plugin_library, rtx_alias_of(plugin_library), *registering_libraries(plugin_library)):
        shutil.copy(path, folder)
    return folder


def registering_libraries(plugin_library: Path) -> list[Path]:
    """Those beside a plugin library, for every TensorRT."""
    library = read_plugin_library(plugin_library)
    return [path for flavour in FLAVOURS for path in library.registering_paths(flavour)]


@pytest.fixture(scope="module")
def tensorrt(abi: Abi, plugin_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of TensorRT's library: TensorRT-RTX's own, else a double."""
    if abi.double is None:
        spec = importlib.util.find_spec("tensorrt_rtx_libs")
        if spec is None or spec.origin is None:
            pytest.skip("TensorRT-RTX is not installed: pip install edgeformer[rtx]")
        return Path(spec.origin).parent
    cache = plugin_library.with_name("CMakeCache.txt").read_text()
    headers = re.search(r"^TensorRT_INCLUDE_DIR:PATH=(.+)$", cache, re.MULTILINE)
    assert headers is not None
    folder = tmp_path_factory.mktemp("tensorrt")
    tests = ROOT / "plugins" / "tests"
    options = ["-std=c++17", "-shared", "-fPIC", f"-DREGISTRY={abi.double}", f"-Wl,-soname,{abi.soname}"]
    includes = ["-isystem", headers[1], "-I", str(tests / "emulation"), "-I", str(tests)]
    output_of("g++", *options, *includes, str(HERE / "tensorrt_double.cpp"), "-o", str(folder / abi.soname))
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program in C that opens a plugin library, and does no more."""
    program = tmp_path_factory.mktemp("host") / "host"
    options = ["-std=c99", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-rdynamic"]
    output_of("cc", *options, str(HERE / "host.c"), "-o", str(program), "-ldl")
    return program


@pytest.fixture
def run(host: Path, abi: Abi) -> Run:
    """Runs the host with a library, and TensorRT in one of the folders."""

    def run(library: Path, *searched: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, searched))}
        command = [str(host), str(library), abi.soname, str(abi.slot)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_there_is_one_for_each_tensorrt(plugin_library: Path) -> None:
    assert {path.name for path in registering_libraries(plugin_library)} == {abi.library for abi in ABIS.values()}
    assert [path.is_file() for path in registering_libraries(plugin_library)] == [True] * 3


def test_it_needs_its_tensorrt_and_the_libraries_beside_it(abi: Abi, folder: Path) -> None:
    needed = dynamic_entries(folder / abi.library, "NEEDED")
    allowed = {"libc.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2", "ld-linux-aarch64.so.1"}
    wanted = [abi.soname, *(f"$ORIGIN/{name}" for name in abi.beside)]
    assert [name for name in needed if name not in allowed] == wanted


def test_it_brings_no_names_and_no_search_path(abi: Abi, folder: Path) -> None:
    """Its own folder is not searched for TensorRT, which somebody could have put there."""
    library = folder / abi.library
    assert exported_symbols(library) == []
    assert dynamic_entries(library, "RUNPATH") == dynamic_entries(library, "RPATH") == []
    undefined = output_of("nm", "-D", "--undefined-only", str(library))
    assert not re.search(r"getPluginRegistry|getCreators|nvinfer1", undefined)


def test_a_host_that_only_opens_it_has_the_plugin(abi: Abi, folder: Path, tensorrt: Path, run: Run) -> None:
    done = run(folder / abi.library, tensorrt)
    assert (done.returncode, done.stdout) == (0, "1 1 1 0 1, unloaded\n"), done.stderr
    # Twice opened for good, and twice closed: at the end of the process, too.
    report = "" if abi.double is None else "registered 2, removed 2, left 0, others 0\n"
    assert done.stderr == report


def test_a_relative_path_does(
    abi: Abi, folder: Path, tensorrt: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert run(Path(folder.name, abi.library), tensorrt).stdout == "1 1 1 0 1, unloaded\n"


def test_another_copy_changes_nothing(
    abi: Abi, folder: Path, tensorrt: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one in the process, as of a second bundle, finds the plugin there and leaves it alone."""
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "copy" / abi.library))
    done = run(folder / abi.library, tensorrt)
    assert (done.returncode, done.stdout) == (0, "1 1 1 1 1, unloaded\n"), done.stderr


def test_without_tensorrt_the_host_is_told_which_is_missing(abi: Abi, folder: Path, run: Run) -> None:
    done = run(folder / abi.library)
    assert done.returncode == 1
    assert f"{abi.soname}: cannot open shared object file" in done.stderr


def test_tensorrt_beside_it_is_not_taken(abi: Abi, folder: Path, tensorrt: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "bundle")
    (tmp_path / "bundle" / abi.soname).symlink_to(tensorrt / abi.soname)
    done = run(tmp_path / "bundle" / abi.library)
    assert done.returncode == 1
    assert f"{abi.soname}: cannot open shared object file" in done.stderr


def test_alone_it_says_what_belongs_beside_it(abi: Abi, folder: Path, tensorrt: Path, run: Run, tmp_path: Path) -> None:
    library = shutil.copy(folder / abi.library, tmp_path)
    done = run(library, tensorrt)
    assert done.returncode == 1
    assert f"{tmp_path / abi.beside[0]}: cannot open shared object file" in done.stderr


def test_a_tensorrt_without_a_registry_does_no_harm(abi: Abi, folder: Path, run: Run, tmp_path: Path) -> None:
    """A library by TensorRT's name that is none: the host lives, and is told."""
    (tmp_path / "empty.c").touch()
    empty = tmp_path / abi.soname
    output_of("cc", "-shared", f"-Wl,-soname,{abi.soname}", str(tmp_path / "empty.c"), "-o", str(empty))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    command = ["python3", "-c", code, str(folder / abi.library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == f"edgeformer: no plugin was registered: {abi.soname} has no getPluginRegistry\n"
