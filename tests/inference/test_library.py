"""The runtime library's C interface, as Python sees it."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.inference import library
from edgeformer.inference.library import _FUNCTIONS, LoadOptions, RuntimeLibrary, default_library
from edgeformer.ops import library_files
from edgeformer.ops.library_files import RUNTIME, library_for
from tests.inference.conftest import ROOT
from tests.raising import raises

HEADER = ROOT / "runtime" / "include" / "edgeformer" / "edgeformer.h"
STRUCTS: dict[str, Any] = {
    "EdgeformerLoadOptions": library.LoadOptions,
    "EdgeformerModelInfo": library.ModelInfo,
    "EdgeformerTensorInfo": library.TensorInfo,
    "EdgeformerTensor": library.Tensor,
    "EdgeformerImage": library.ImageStruct,
    "EdgeformerClass": library.ClassStruct,
}


@pytest.fixture
def anew() -> None:
    """The library is looked for again, and is not kept for other tests."""
    default_library.cache_clear()


def header() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_have_the_headers_fields_in_its_order(name: str) -> None:
    (body,) = re.findall(rf"struct {name} \{{(.*?)\}};", header(), re.DOTALL)
    expected = re.findall(r"(\w+)(?:\[\w+\])?;", body)
    assert [field[0] for field in STRUCTS[name]._fields_] == expected
    for kind, field in re.findall(r"^\s*(u?int\d+_t|float) (\w+);", body, re.MULTILINE):
        size = 4 if kind == "float" else int(re.sub(r"\D", "", kind)) // 8
        assert getattr(STRUCTS[name], field).size == size, field


def test_functions_have_the_headers_arguments() -> None:
    for name, arguments in _FUNCTIONS.items():
        (declared,) = re.findall(rf"EDGEFORMER_API int32_t {name}\((.*?)\);", header(), re.DOTALL)
        assert len(declared.split(",")) == len(arguments), name


def test_the_installations_library_is_taken() -> None:
    # The newest may be one that was cross-compiled for a device.
    assert default_library().path == library_for(platform.machine(), RUNTIME)
    assert default_library() is default_library()


@pytest.mark.usefixtures("anew")
def test_no_library_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNTIME.variable, raising=False)
    monkeypatch.setattr(library_files, "_PACKAGE", tmp_path / "edgeformer")
    with raises("EF860", RUNTIME.name, tmp_path, "cmake") as caught:
        default_library()
    assert caught.type is EnvironmentFault


@pytest.mark.usefixtures("anew")
def test_a_library_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / RUNTIME.name
    monkeypatch.setenv(RUNTIME.variable, str(path))
    with raises("EF861", path, "No such file"):
        default_library()
    path.write_bytes(b"no library")
    with raises("EF861", path):
        default_library()


def test_a_library_of_another_version(tmp_path: Path) -> None:
    source, path = tmp_path / "old.c", tmp_path / "libold.so"
    source.write_text("int edgeformerLoad(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    with raises("EF861", path, "edgeformer", "build it again"):
        RuntimeLibrary(path)


def test_a_status_becomes_the_error_of_its_kind() -> None:
    """What the caller gave, what the machine lacks, and what is neither."""
    loaded = RuntimeLibrary(default_library().path)
    options = LoadOptions(contexts=65)
    with raises("EF101", "contexts=65", "64") as caught:
        loaded.load(b"nothing", options)
    assert caught.type is InputError
    with raises("EF701", "nothing"):
        loaded.load(b"nothing", LoadOptions())
    for status, kind in ((3, EnvironmentFault), (4, RuntimeError), (99, RuntimeError)):
        with pytest.raises(kind):
            loaded.check(status)
    loaded.check(0)


def test_a_struct_begins_with_its_size() -> None:
    assert LoadOptions().struct_size == ctypes.sizeof(LoadOptions)
