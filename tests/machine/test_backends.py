from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer.machine.backends import (
    Backend,
    find_backend,
    import_backend,
    installed_flavours,
    require_backend,
    version_tuple,
)
from tests.raising import raises


def package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that packages are found in."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    for name in [name for name in sys.modules if name.startswith("tensorrt")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "modules", sys.modules)
    return folder


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
    monkeypatch.setattr("edgeformer.machine.backends._JETSON_MARK", jetson)
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
