from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from edgeformer.machine.plugin_library import (
    find_device_library,
    find_plugin_library,
    read_plugin_library,
    require_plugin_library,
)
from edgeformer.ops.library_files import ENVIRONMENT_VARIABLE, LIBRARY_NAME
from tests.build_trees import make_build_tree, make_sources
from tests.raising import raises

METADATA = {
    "version": "0.1.0",
    "tensorrt_headers": "10.14.1",
    "cuda": "13.0",
    "cpu": platform.machine(),
    "architectures": ["75", "86"],
    "ptx": [],
    "aux": "libtensorrt_rtx.so",
}


def put(folder: Path, metadata: Any = METADATA) -> Path:
    """A library that is no library, with its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIBRARY_NAME).write_bytes(b"not ELF")
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    (folder / "libedgeformer_plugins.json").write_text(text)
    return folder / LIBRARY_NAME


def put_build(folder: Path, metadata: Any = METADATA) -> Path:
    """The same where CMake would have built it."""
    library = put(folder, metadata)
    make_build_tree(folder)
    return library


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without any plugin library."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr("edgeformer.ops.library_files._PACKAGE", tmp_path / "edgeformer")
    make_sources(tmp_path)
    return tmp_path


def test_search_order(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_plugin_library() is None
    older, newer = put_build(installation / "build" / "a"), put_build(installation / "build" / "b")
    os.utime(older, (1000, 1000))
    assert _found() == newer
    os.utime(newer, (500, 500))
    assert _found() == older
    packaged = put(installation / "edgeformer" / "_plugins")
    assert _found() == packaged
    chosen = put(installation / "elsewhere")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(chosen))
    assert _found() == chosen


def _found() -> Path:
    library = find_plugin_library()
    assert library is not None
    return library.path


def test_chosen_library_that_is_missing_is_not_replaced_by_another(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(installation / "edgeformer" / "_plugins")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(installation / "gone.so"))
    with raises("EF612", installation / "gone.so", "cmake --build"):
        find_plugin_library()


def test_metadata_is_read(installation: Path) -> None:
    library = read_plugin_library(put(installation))
    assert library.metadata.architectures == (75, 86)
    assert library.metadata.tensorrt_headers == "10.14.1"
    assert library.aux_path == installation / "libtensorrt_rtx.so"
    (installation / "libtensorrt_rtx.so").touch()
    assert [path.name for path in library.files("tensorrt")] == [
        "libedgeformer_plugins.so",
        "libedgeformer_plugins.json",
        "libtensorrt_rtx.so",
    ]
    alone = read_plugin_library(put(installation, {**METADATA, "aux": None}))
    assert alone.aux_path is None
    assert len(alone.files("tensorrt")) == 2


def test_each_flavour_has_libraries_for_its_hosts(installation: Path) -> None:
    names = {"tensorrt": ["ten.so", "eleven.so"], "tensorrt_rtx": ["rtx.so"]}
    library = read_plugin_library(put(installation, {**METADATA, "aux": None, "registering": names}))
    assert library.registering_paths("tensorrt") == (installation / "ten.so", installation / "eleven.so")
    assert library.registering_paths("tensorrt_rtx") == (installation / "rtx.so",)
    (installation / "rtx.so").touch()
    (installation / "ten.so").touch()
    assert library.files("tensorrt_rtx")[2:] == (installation / "rtx.so",)
    with raises("EF612", installation / "eleven.so", "cmake --build"):
        library.files("tensorrt")
    assert read_plugin_library(put(installation)).registering_paths("tensorrt") == ()


def test_a_library_for_hosts_lies_beside_the_plugin_library(installation: Path) -> None:
    path = put(installation, {**METADATA, "registering": {"tensorrt": ["../elsewhere.so"]}})
    with raises("EF612", "registering.tensorrt.0", "../elsewhere.so"):
        read_plugin_library(path)


def test_architectures_as_cmake_writes_them(installation: Path) -> None:
    metadata = {**METADATA, "architectures": ["75", "87", "120a"], "ptx": ["80", "120a"]}
    held = read_plugin_library(put(installation, metadata)).metadata
    assert held.architectures == (75, 87, 120)
    assert held.ptx == (80,)
    assert held.kernels == "SM 75, 87, 120; PTX of 8.0 for later GPUs"


@pytest.mark.parametrize(
    ("sm", "served"), [(75, "machine code"), (72, None), (80, "PTX"), (87, "machine code"), (100, "PTX"), (130, "PTX")]
)
def test_ptx_serves_its_own_and_later_gpus(installation: Path, sm: int, served: str | None) -> None:
    library = read_plugin_library(put(installation, {**METADATA, "architectures": ["75", "87"], "ptx": ["80"]}))
    assert library.metadata.kernels_for(sm) == served
    if served:
        library.require_sm(sm)
    else:
        with raises("EF613", library.path, "SM 75, 87; PTX of 8.0", "SM 72"):
            library.require_sm(sm)


def test_a_library_for_another_processor_is_for_that_one_alone(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = put_build(installation / "build" / "jetson", {**METADATA, "cpu": "vax"})
    assert find_plugin_library() is None
    assert _for_device("vax", 86) == foreign
    assert _for_device("vax", 87) is None
    assert _for_device("pdp", 86) is None
    own = put_build(installation / "build" / "default")
    assert _found() == own
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(foreign))
    assert _for_device("vax", 86) == foreign
    with raises("EF613", foreign, ENVIRONMENT_VARIABLE, "vax", platform.machine()):
        find_plugin_library()


def test_a_bundles_library_serves_neither_this_machine_nor_a_device(installation: Path) -> None:
    put(installation / "build" / "demo")
    put(installation / "build" / "for-the-vax", {**METADATA, "cpu": "vax"})
    assert find_plugin_library() is None
    assert _for_device("vax", 86) is None
    own = put_build(installation / "build" / "default")
    foreign = put_build(installation / "build" / "jetson", {**METADATA, "cpu": "vax"})
    assert _found() == own
    assert _for_device("vax", 86) == foreign


def test_a_device_gets_the_library_of_the_oldest_cuda(installation: Path) -> None:
    put_build(installation / "build" / "a", {**METADATA, "cpu": "vax", "cuda": "13.0"})
    older = put_build(installation / "build" / "b", {**METADATA, "cpu": "vax", "cuda": "12.6"})
    put_build(installation / "build" / "c", {**METADATA, "cpu": "vax", "cuda": "12.10"})
    put_build(installation / "build" / "d", {**METADATA, "cpu": "vax", "cuda": "11.8", "architectures": ["75"]})
    assert _for_device("vax", 86) == older


def _for_device(cpu: str, sm: int) -> Path | None:
    library = find_device_library(cpu, sm)
    return None if library is None else library.path


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("{", "Invalid JSON"),
        ("[]", "file: "),
        ({**METADATA, "architectures": 86}, "architectures"),
        ({key: value for key, value in METADATA.items() if key != "cuda"}, "cuda: Field required"),
    ],
)
def test_damaged_metadata_is_one_message(installation: Path, metadata: Any, named: str) -> None:
    path = put(installation, metadata)
    with raises("EF612", path.with_suffix(".json"), named, "cmake --build"):
        read_plugin_library(path)


def test_missing_metadata_is_said(installation: Path) -> None:
    path = put(installation)
    path.with_suffix(".json").unlink()
    with raises("EF612", path.with_suffix(".json"), "No such file", "cmake --build"):
        read_plugin_library(path)


def test_missing_library_says_what_to_do(installation: Path) -> None:
    places = (installation / "edgeformer" / "_plugins" / LIBRARY_NAME, installation / "build" / "*" / LIBRARY_NAME)
    with raises("EF610", *places, "cmake --build", ENVIRONMENT_VARIABLE, "--no-plugin"):
        require_plugin_library(86)


def test_target_without_kernels_says_which_there_are(installation: Path) -> None:
    put(installation / "edgeformer" / "_plugins")
    assert require_plugin_library(86).metadata.architectures == (75, 86)
    with raises("EF613", "SM 75, 86", "SM 89", "ARCHITECTURES=89", "--no-plugin"):
        require_plugin_library(89)
