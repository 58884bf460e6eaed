from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from edgeformer.machine import backends
from edgeformer.machine.backends import (
    BACKEND_RANGES,
    Backend,
    ImportedBackend,
    find_backend,
    import_backend,
    installed_flavours,
    probe_backend,
    require_backend,
    version_tuple,
)
from tests.raising import raises

ROOT = Path(__file__).parents[2]
# A module whose text says another version than it has.
TWO_VERSIONS = '__version__ = "1.7.1"\n__version__ = ".".join(["1", "4", "0"])\n'


def package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder that packages are found in."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    for name in [name for name in sys.modules if name.startswith("tensorrt")]:
        monkeypatch.delitem(sys.modules, name)
    yield folder
    # What a test imported from there is gone with it.
    for name in [name for name in sys.modules if name.startswith("tensorrt")]:
        del sys.modules[name]


def test_version_numbers_compare_by_number() -> None:
    assert version_tuple("1.7.1.116") == (1, 7, 1, 116)
    assert version_tuple("10.3.0.30-1+cuda12.5") == (10, 3, 0, 30)
    assert version_tuple("10.3") > version_tuple("9.9")


def test_within_takes_the_lower_and_not_the_upper_end() -> None:
    def within(version: str) -> bool:
        return Backend("tensorrt", "tensorrt", version, Path()).within("10.3", "12")

    assert [within(version) for version in ("10.2.9", "10.3", "10.3.0.26", "11.9", "12", "12.0", "")] == [
        False, True, True, True, False, False, False,
    ]  # fmt: skip


def test_nothing_installed(site: Path) -> None:
    assert find_backend("tensorrt") is None
    assert find_backend("tensorrt_rtx") is None


def test_version_is_read_without_importing(site: Path) -> None:
    package(site, "tensorrt", '__version__ = "10.3.0"\nraise SystemExit("imported")\n')
    assert find_backend("tensorrt") == Backend("tensorrt", "tensorrt", "10.3.0", site / "tensorrt")
    assert "tensorrt" not in sys.modules


def test_version_may_stand_in_the_bindings(site: Path) -> None:
    package(site, "tensorrt_rtx", "from tensorrt_rtx_bindings import *\n")
    package(site, "tensorrt_rtx_bindings", "import os\n__version__ = '1.7.1.116'\n")
    backend = find_backend("tensorrt_rtx")
    assert backend is not None
    assert (backend.module, backend.version, backend.title) == ("tensorrt_rtx", "1.7.1.116", "TensorRT-RTX 1.7.1.116")


def test_bindings_alone_are_enough(site: Path) -> None:
    package(site, "tensorrt_rtx_bindings", '__version__ = "1.7.1"\n')
    backend = find_backend("tensorrt_rtx")
    assert backend is not None
    assert backend.module == "tensorrt_rtx_bindings"


def test_a_folder_of_type_stubs_is_no_tensorrt(site: Path) -> None:
    (site / "tensorrt").mkdir()
    (site / "tensorrt" / "__init__.pyi").write_text("class Builder: ...\n")
    assert find_backend("tensorrt") is None


def test_require_says_how_to_install(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with raises("EF605", "TensorRT-RTX is not installed", "pip install 'edgeformer[rtx]'"):
        require_backend("tensorrt_rtx")
    with raises("EF605", "TensorRT is not installed", "pip install 'edgeformer[tensorrt]'"):
        require_backend("tensorrt")
    jetson = tmp_path / "nv_tegra_release"
    jetson.touch()
    monkeypatch.setattr("edgeformer.machine.jetpack._RELEASE_FILE", jetson)
    with raises("EF605", "sudo apt-get install python3-libnvinfer"):
        require_backend("tensorrt")


def test_require_checks_the_range(site: Path) -> None:
    package(site, "tensorrt", '__version__ = "10.3.0"\n')
    assert require_backend("tensorrt").version == "10.3.0"
    with raises("EF605", "TensorRT 10.3.0 is installed", "10.13 or newer, below 12"):
        require_backend("tensorrt", "10.13", "12")


def test_broken_package_keeps_its_words(site: Path) -> None:
    package(site, "tensorrt", '__version__ = "10.3.0"\nraise ImportError("libnvinfer.so.10: cannot open")\n')
    backend = require_backend("tensorrt")
    with raises("EF606", "TensorRT 10.3.0", sys.executable, "libnvinfer.so.10: cannot open", "pip install"):
        import_backend(backend)


def test_importing_the_room_imports_no_tensorrt_and_no_torch() -> None:
    modules = ["builder", "compiler", "diagnosis", "inspect", "targets", "worker"]
    code = "import sys\n" + "".join(f"import edgeformer.engine.{name}\n" for name in modules)
    code += "print([name for name in sys.modules if name.split('.')[0].startswith(('tensorrt', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_installed_flavours_are_found_without_importing_them(site: Path) -> None:
    assert installed_flavours() == ()
    package(site, "tensorrt_rtx", '__version__ = "1.7.1"\nraise SystemExit("imported")\n')
    assert installed_flavours() == ("tensorrt_rtx",)


def test_the_floor_is_the_same_wherever_it_is_written() -> None:
    assert BACKEND_RANGES == {"tensorrt": ("10.3", "12"), "tensorrt_rtx": ("1.7", "2")}
    project = (ROOT / "pyproject.toml").read_text()
    for name, flavour in (("tensorrt-rtx", "tensorrt_rtx"), ("tensorrt", "tensorrt")):
        assert f'"{name}>={BACKEND_RANGES[flavour][0]}' in project  # type: ignore[index]
    pinned = re.search(r"^tensorrt-rtx==(\S+)", (ROOT / "scripts" / "lock" / "setup.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert Backend("tensorrt_rtx", "", pinned[1], Path()).within(*BACKEND_RANGES["tensorrt_rtx"])


def test_bindings_that_stand_first_on_the_path_are_the_ones_imported(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(site, "tensorrt_rtx", "from tensorrt_rtx_bindings import *\n")
    package(site, "tensorrt_rtx_bindings", '__version__ = "1.7.1"\n')
    first = tmp_path / "first"
    first.mkdir()
    package(first, "tensorrt_rtx_bindings", '__version__ = "1.4.0.76"\n')
    monkeypatch.setattr(sys, "path", [str(first), str(site)])
    place = f"TensorRT-RTX 1.4.0.76 is installed in {first / 'tensorrt_rtx_bindings'}"
    with raises("EF605", place, "1.7 or newer"):
        require_backend("tensorrt_rtx")
    # What pip knows of is another one: installing it once more would not help.
    (site / "tensorrt_rtx-1.7.1.dist-info").mkdir()
    (site / "tensorrt_rtx-1.7.1.dist-info" / "METADATA").write_text("Name: tensorrt-rtx\nVersion: 1.7.1\n")
    with raises("EF605", place, "before the installed package 1.7.1: take that folder off its path"):
        require_backend("tensorrt_rtx")


def test_a_probe_says_what_is_imported(site: Path) -> None:
    package(site, "tensorrt_rtx", TWO_VERSIONS)
    backend = require_backend("tensorrt_rtx")
    assert backend.version == "1.7.1"
    imported = probe_backend(backend)
    assert (imported.module, imported.library, imported.path) == ("1.4.0", "", str(site / "tensorrt_rtx"))
    assert imported.version == "1.4.0"
    assert "tensorrt_rtx" not in sys.modules
    with raises("EF830", "TensorRT-RTX 1.4.0", sys.executable, site / "tensorrt_rtx", "1.7 or newer, below 2", "pip"):
        imported.require("1.7", "2")


def test_what_cannot_be_probed_keeps_its_words(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(site, "tensorrt_rtx", '__version__ = "1.7.1"\nraise ImportError("libcudart.so.13: cannot open")\n')
    backend = require_backend("tensorrt_rtx")
    with raises("EF606", "TensorRT-RTX 1.7.1", "libcudart.so.13: cannot open"):
        probe_backend(backend)
    (site / "tensorrt_rtx" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with raises("EF606", "its process ended with -9"):
        probe_backend(backend)
    (site / "tensorrt_rtx" / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr("edgeformer.machine.backends._PROBE_SECONDS", 1)
    with raises("EF606", "longer than 1 s"):
        probe_backend(backend)


def test_an_imported_version_that_does_not_work_is_refused(site: Path) -> None:
    package(site, "tensorrt_rtx", TWO_VERSIONS)
    # Where an earlier test has loaded the real library, this process has that one.
    with raises("EF830", "1.4.0", "1.7 or newer"):
        import_backend(require_backend("tensorrt_rtx"))


def test_module_and_library_both_count() -> None:
    def imported(module: str, library: str, package: str) -> ImportedBackend:
        return ImportedBackend("tensorrt_rtx", module, library, package, "/opt")

    same = imported("1.7.1.116", "1.7.1.116", "1.7.1.116")
    same.require("1.7", "2")
    assert same.difference == ""
    # A build number that only one of them has is no difference.
    assert imported("1.7.1", "1.7.1.116", "").difference == ""
    for module, library in (("1.7.1", "1.6.1"), ("1.6.1", "1.7.1")):
        with raises("EF830", module, library, "the library that it loads"):
            imported(module, library, "1.7.1").require("1.7", "2")
    assert imported("1.7.1", "", "1.8.0").difference == (
        "the module imported from /opt is 1.7.1, the installed package is 1.8.0"
    )


def test_the_installed_tensorrt_rtx_says_one_version() -> None:
    """The library is asked itself, in the child that loaded it."""
    backend = find_backend("tensorrt_rtx")
    if backend is None:
        pytest.skip("TensorRT-RTX is not installed")
    imported = probe_backend(backend)
    assert imported.module == imported.library == imported.package == backend.version
    assert imported.difference == ""


@pytest.mark.parametrize(
    ("functions", "version"),
    [
        ({"getInferLibVersion": 100300}, "10.3.0"),
        ({"getInferLibVersion": 101302}, "10.13.2"),
        ({"getInferLibVersion": 8601}, "8.6.1"),
        (
            {
                "getInferLibMajorVersion": 1,
                "getInferLibMinorVersion": 7,
                "getInferLibPatchVersion": 1,
                "getInferLibBuildVersion": 116,
            },
            "1.7.1.116",
        ),
        ({}, ""),
    ],
)
def test_a_library_is_asked_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, functions: dict[str, int], version: str
) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 0 0 0    /opt/libtensorrt_rtx.so\n7f01-7f02 r-xp 0 0 0    /opt/a b/libtensorrt_rtx.so.1\n"
    )
    monkeypatch.setattr(backends, "_MAPPED_FILES", maps)
    opened = []

    def open_library(path: str) -> SimpleNamespace:
        opened.append(path)
        return SimpleNamespace(**{name: (lambda value=value: value) for name, value in functions.items()})

    monkeypatch.setattr("ctypes.CDLL", open_library)
    assert ImportedBackend.of("tensorrt_rtx", ModuleType("tensorrt_rtx")).library == version
    # Not edgeformer's own library of nearly that name.
    assert opened == ["/opt/a b/libtensorrt_rtx.so.1"]
    assert ImportedBackend.of("tensorrt", ModuleType("tensorrt")).library == ""
