"""Where Python's packages keep the backends' libraries; none of the packages is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer.inference.backend_libraries import has_tensorrt, onnx_runtime_library, tensorrt_library


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONNXRUNTIME", "TENSORRT", "TENSORRT_RTX"):
        monkeypatch.delenv(f"EDGEFORMER_{name}_LIBRARY", raising=False)


def put(folder: Path, package: str, *files: str) -> None:
    for file in files:
        path = folder / package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_onnx_runtimes_library_is_that_of_its_package() -> None:
    path = onnx_runtime_library()
    assert path is not None
    assert path.match("onnxruntime/capi/libonnxruntime.so.*")
    probe = (
        "import sys\nfrom edgeformer.inference.backend_libraries import onnx_runtime_library as find\n"
        "assert find()\nprint('onnxruntime' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("flavour", "package", "file"),
    [
        ("tensorrt", "tensorrt_libs", "libnvinfer.so.10"),
        ("tensorrt_rtx", "tensorrt_rtx_libs", "libtensorrt_rtx.so.1"),
    ],
)
def test_tensorrts_library_is_that_of_its_package(
    flavour: str, package: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, package, "__init__.py", "libother.so.1", file)
    monkeypatch.syspath_prepend(str(tmp_path))
    # An earlier test may have imported the real one.
    monkeypatch.delitem(sys.modules, package, raising=False)
    assert tensorrt_library(flavour) == tmp_path / package / file


def test_a_package_without_the_library_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "onnxruntime", "__init__.py", "capi/readme.txt")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", _finder(tmp_path))
    assert onnx_runtime_library() is None


def _finder(folder: Path):  # type: ignore[no-untyped-def]
    from importlib.machinery import PathFinder

    return lambda name: PathFinder.find_spec(name, [str(folder)])


def test_without_the_package_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (lambda name: None, _raises):
        monkeypatch.setattr("importlib.util.find_spec", answer)
        assert onnx_runtime_library() is None
        assert tensorrt_library("tensorrt") is None


def _raises(name: str) -> None:
    raise ValueError(f"{name}.__spec__ is None")


def test_what_the_user_names_is_left_to_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFORMER_ONNXRUNTIME_LIBRARY", "/opt/libonnxruntime.so")
    assert onnx_runtime_library() is None
    for flavour in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setenv(f"EDGEFORMER_{flavour.upper()}_LIBRARY", "/opt/lib.so")
        assert tensorrt_library(flavour) is None


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_whether_tensorrt_will_be_found(flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_library(name: str, mode: int) -> None:
        opened.append(name)
        if "there" not in name:
            raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", open_library)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert not has_tensorrt(flavour)
    assert opened == (["libnvinfer.so.11", "libnvinfer.so.10"] if flavour == "tensorrt" else ["libtensorrt_rtx.so.1"])
    for name, found in (("/opt/there.so", True), ("/opt/gone.so", False)):
        monkeypatch.setenv(f"EDGEFORMER_{flavour.upper()}_LIBRARY", name)
        assert has_tensorrt(flavour) is found
        assert opened[-1] == name
    monkeypatch.delenv(f"EDGEFORMER_{flavour.upper()}_LIBRARY")
    put(tmp_path, f"{flavour}_libs", "libnvinfer.so.10", "libtensorrt_rtx.so.1")
    monkeypatch.setattr("importlib.util.find_spec", _finder(tmp_path))
    count = len(opened)
    assert has_tensorrt(flavour)
    assert len(opened) == count, "a package's library is not opened to be found"
