"""Where the plugin library is looked for: a bundle's copy is never taken for the compiler's, wherever it lies."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

import edgeformer
from edgeformer.bundle.files import ENGINE, EXPORTED, MANIFEST, PARITY, SIGNATURE
from edgeformer.ops import library_files
from edgeformer.ops.library_files import (
    ENVIRONMENT_VARIABLE,
    LIBRARY_NAME,
    RTX_ALIAS_NAME,
    candidate_paths,
    cpu_of,
    development_builds,
    library_for,
    metadata_of,
    registered_by,
    rtx_alias_of,
    searched_places,
)
from tests.build_trees import PROJECT, make_build_tree, make_sources

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree without any plugin library."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(library_files, "_PACKAGE", tmp_path / "edgeformer")
    make_sources(tmp_path)
    return tmp_path


def put(folder: Path, modified: float, **files: str) -> Path:
    """A library of that age, and further files with their text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIBRARY_NAME).touch()
    os.utime(folder / LIBRARY_NAME, (modified, modified))
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder / LIBRARY_NAME


def put_build(folder: Path, modified: float, cache: str = PROJECT) -> Path:
    make_build_tree(folder, cache)
    return put(folder, modified)


def put_bundle(folder: Path, modified: float) -> Path:
    return put(folder, modified, manifest_json="{}")


def test_nothing_is_found_where_nothing_is(tree: Path) -> None:
    assert candidate_paths() == ()
    packaged, built = tree / "edgeformer" / "_plugins" / LIBRARY_NAME, tree / "build" / "*" / LIBRARY_NAME
    assert searched_places() == f"looked for: {packaged}, {built}"


def test_the_wheels_comes_first_then_the_newest_build(tree: Path) -> None:
    older, newer = put_build(tree / "build" / "default", 1000), put_build(tree / "build" / "jetson", 2000)
    assert candidate_paths() == development_builds() == (newer, older)
    os.utime(older, (3000, 3000))
    assert candidate_paths() == (older, newer)
    packaged = put(tree / "edgeformer" / "_plugins", 500)
    assert candidate_paths() == (packaged, older, newer)
    assert development_builds() == (older, newer)


@pytest.mark.parametrize("modified", [1000, 3000], ids=["older", "newer"])
def test_the_demos_bundle_is_no_build(tree: Path, modified: float) -> None:
    bundle = put_bundle(tree / "build" / "demo", modified)
    assert candidate_paths() == ()
    assert searched_places().endswith(f"; passed over: {bundle} (a bundle's copy)")
    built = put_build(tree / "build" / "default", 2000)
    assert candidate_paths() == (built,)


def test_a_bundle_is_none_wherever_its_files_lie(tree: Path) -> None:
    bundle = put_bundle(tree / "build" / "demo", 1000).parent
    shutil.copytree(bundle, tree / "build" / "copied")
    overwritten = put_build(tree / "build" / "default", 2000)
    shutil.copytree(bundle, overwritten.parent, dirs_exist_ok=True)
    assert candidate_paths() == ()
    assert searched_places().count("(a bundle's copy)") == 3


@pytest.mark.parametrize("mark", ["manifest.sig", "parity.npz", "exported.onnx", "model.engine"])
def test_a_bundle_unpacked_over_a_build_is_known_without_its_manifest(tree: Path, mark: str) -> None:
    library = put_build(tree / "build" / "default", 1000)
    (library.parent / mark).touch()
    assert candidate_paths() == ()
    assert f"{library} (a bundle's copy)" in searched_places()


def test_a_cache_alone_does_not_make_a_build(tree: Path) -> None:
    library = put_build(tree / "build" / "default", 1000)
    shutil.rmtree(library.parent / "plugins")
    assert candidate_paths() == ()
    assert "no object files beside it" in searched_places()


def test_beside_an_installed_package_nothing_is_a_build(tree: Path) -> None:
    """site-packages/build/ is the folder of another project's package."""
    library = put_build(tree / "build" / "default", 1000)
    assert candidate_paths() == (library,)
    (tree / "CMakeLists.txt").unlink()
    assert candidate_paths() == ()
    assert f"{library} (not in a source checkout)" in searched_places()


def test_links_to_libraries_elsewhere_are_no_builds(tree: Path) -> None:
    elsewhere = put_build(tree / "elsewhere", 1000)
    (tree / "build").mkdir()
    (tree / "build" / "linked").symlink_to(elsewhere.parent)
    own = put_build(tree / "build" / "default", 1000)
    own.unlink()
    own.symlink_to(elsewhere)
    assert candidate_paths() == ()
    assert searched_places().count("(a link)") == 2


def test_a_library_that_was_only_put_there_is_no_build(tree: Path) -> None:
    put(tree / "build" / "download", 1000)
    put_build(tree / "build" / "other", 1000, "CMAKE_PROJECT_NAME:STATIC=edgeformer_app")
    put_build(tree / "build" / "another", 1000, "OLD_CMAKE_PROJECT_NAME:STATIC=edgeformer")
    assert candidate_paths() == ()
    places = searched_places()
    assert f"download/{LIBRARY_NAME} (no CMakeCache.txt beside it" in places
    assert places.count("built by another project") == 2


def test_a_moved_source_tree_keeps_its_build(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_build(tree / "build" / "default", 1000, f"CMAKE_HOME_DIRECTORY:INTERNAL={tree}\n{PROJECT}")
    shutil.copytree(tree, tree / "moved")
    monkeypatch.setattr(library_files, "_PACKAGE", tree / "moved" / "edgeformer")
    assert candidate_paths() == (tree / "moved" / "build" / "default" / LIBRARY_NAME,)


def test_the_environment_names_any_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_build(tree / "build" / "default", 1000)
    bundle = put_bundle(tree / "build" / "demo", 1000)
    for chosen in (bundle, tree / "gone.so"):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(chosen))
        assert candidate_paths() == (chosen,)
        assert searched_places() == f"looked for: {chosen}, named in $EDGEFORMER_PLUGIN_LIBRARY"
    monkeypatch.chdir(tree / "build" / "demo")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, LIBRARY_NAME)
    assert candidate_paths() == (bundle,)


def test_what_lies_beside_a_library(tmp_path: Path) -> None:
    library = tmp_path / LIBRARY_NAME
    assert metadata_of(library) == tmp_path / "libedgeformer_plugins.json"
    assert rtx_alias_of(library) == tmp_path / "libtensorrt_rtx.so"
    registering = tmp_path / "libedgeformer_register_tensorrt11.so"
    assert registered_by(registering) == library
    assert registered_by(library) == library


def test_this_build_tree_is_known_by_what_cmake_has_written() -> None:
    """The mark that is looked for is CMake's own: a build tree of this repository has it."""
    caches = [path for path in (ROOT / "build").glob("*/CMakeCache.txt") if path.with_name(LIBRARY_NAME).is_file()]
    if not caches:
        pytest.skip("no build tree has the plugin library: cmake --preset default && cmake --build --preset default")
    assert {path.parent for path in development_builds()} == {path.parent for path in caches}


def test_a_bundle_is_known_by_its_manifest() -> None:
    assert library_files._BUNDLE_MARKS == (MANIFEST, SIGNATURE, PARITY, EXPORTED, ENGINE)


@pytest.mark.parametrize("name", ["libedgeformer_plugins", "libedgeformer_register", "libtensorrt_rtx.so", '"_plugins'])
def test_the_package_says_each_name_once(name: str) -> None:
    package = Path(edgeformer.__file__).parent
    holders = [path.relative_to(package) for path in package.rglob("*.py") for _ in range(path.read_text().count(name))]
    assert holders == [Path("ops/library_files.py")]


def test_cmake_builds_and_installs_under_these_names() -> None:
    library = (ROOT / "plugins" / "library.cmake").read_text()
    target = LIBRARY_NAME.removeprefix("lib").removesuffix(".so")
    assert f"add_library({target} SHARED" in library
    assert f'"${{PROJECT_BINARY_DIR}}/{metadata_of(Path(LIBRARY_NAME))}"' in library
    install = (ROOT / "plugins" / "install.cmake").read_text()
    assert f"LIBRARY DESTINATION edgeformer/{library_files.PLUGINS.wheel_folder} " in install
    alias = (ROOT / "cmake" / "TensorRtRtxAlias.cmake").read_text()
    assert f"OUTPUT_NAME {RTX_ALIAS_NAME.removeprefix('lib').removesuffix('.so')}\n" in alias
    metadata = (ROOT / "plugins" / "libedgeformer_plugins.json.in").read_text()
    assert f'"aux": "{RTX_ALIAS_NAME}"' in metadata
    registering = (ROOT / "plugins" / "registering" / "registering.cmake").read_text()
    built = re.findall(r"^edgeformer_add_registering_library\((\w+) ", registering, re.MULTILINE)
    assert len(built) == 3
    prefix = library_files._REGISTERING_PREFIX
    assert re.findall(rf'"({prefix}\w+)\.so"', metadata) == [f"{prefix}{name}" for name in built]
    assert f"set(target {prefix.removeprefix('lib')}${{name}})" in registering
    for needed in (LIBRARY_NAME, RTX_ALIAS_NAME):
        assert f"$ORIGIN/{needed}" in registering


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(11) + machine.to_bytes(2, "little")


def test_a_library_is_chosen_by_its_processor(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = put_build(tree / "build" / "default", 1.0)
    there = put_build(tree / "build" / "jetson", 2.0)
    here.write_bytes(elf(62))
    there.write_bytes(elf(183))
    assert candidate_paths()[0] in (here, there)
    assert library_for("x86_64") == here
    assert library_for("aarch64") == there
    assert library_for("riscv64") is None
    there.write_bytes(b"\x7fELF")
    assert cpu_of(there) is None
    assert cpu_of(tree / "not there") is None
    here.write_bytes(b"MZ" + elf(62)[2:])
    assert library_for("x86_64") is None
