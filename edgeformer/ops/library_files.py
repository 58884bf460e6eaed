"""The plugin library's files: their names, where they are looked for, and how a build tree is recognized.

Whatever needs the plugin library asks this module for its place, so that only the installation's own library is ever
taken: never the copy in a bundle, wherever the bundle is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = [
    "BUILD_COMMAND",
    "ENVIRONMENT_VARIABLE",
    "LIBRARY_NAME",
    "RTX_ALIAS_NAME",
    "candidate_paths",
    "development_builds",
    "metadata_of",
    "opened_with",
    "rtx_alias_of",
    "searched_places",
]

ENVIRONMENT_VARIABLE = "EDGEFORMER_PLUGIN_LIBRARY"
LIBRARY_NAME = "libedgeformer_plugins.so"
# The helper library that makes TensorRT-RTX known by its unversioned name (cmake/TensorRtRtxAlias.cmake).
RTX_ALIAS_NAME = "libtensorrt_rtx.so"
# The libraries that register the plugins as they are opened (plugins/registering/).
_REGISTERING_PREFIX = "libedgeformer_register_"
BUILD_COMMAND = "cmake --preset default && cmake --build --preset default"

_PACKAGE = Path(__file__).resolve().parent.parent
_WHEEL_FOLDER = "_plugins"
# What a bundle has and a build tree has not: one unpacked into a build tree, even without its manifest, has some of it.
_BUNDLE_MARKS = ("manifest.json", "manifest.sig", "parity.npz", "exported.onnx", "model.engine")
_CMAKE_CACHE = "CMakeCache.txt"
_CMAKE_PROJECT = re.compile(r"^CMAKE_PROJECT_NAME:\w+=edgeformer$", re.MULTILINE)
# Where CMake puts the library's object files, with every generator.
_OBJECTS = Path("plugins", "CMakeFiles", f"{Path(LIBRARY_NAME).stem.removeprefix('lib')}.dir")
# The sources that such a tree is built from, beside the package.
_SOURCES = (Path("CMakeLists.txt"), Path("plugins", "library.cmake"))


def candidate_paths() -> tuple[Path, ...]:
    """The plugin libraries of this installation, best first.

    Returns:
        The file that the environment variable names, whether it exists or not. Without the variable those that exist:
        the wheel's, then those of the build trees, newest first.
    """
    if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
        return (Path(chosen).absolute(),)
    packaged = _packaged()
    return (*([packaged] if packaged.is_file() else []), *development_builds())


def development_builds() -> tuple[Path, ...]:
    """The plugin libraries in the build trees beside the package, ``build/*/``, newest first.

    Only in a source checkout: beside an installed package ``build/`` is anybody's.
    """
    built = [path for path in _below_build() if _why_not_built(path.parent) is None]
    return tuple(sorted(built, key=lambda path: path.stat().st_mtime, reverse=True))


def searched_places() -> str:
    """Where `candidate_paths` looks, and what it passes over and why: for the message that nothing was found."""
    if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
        return f"looked for: {chosen}, named in ${ENVIRONMENT_VARIABLE}"
    places = f"looked for: {_packaged()}, {_builds() / '*' / LIBRARY_NAME}"
    reasons = ((path, _why_not_built(path.parent)) for path in _below_build())
    passed_over = "; ".join(f"{path} ({reason})" for path, reason in reasons if reason)
    return f"{places}; passed over: {passed_over}" if passed_over else places


def metadata_of(library: Path) -> Path:
    """The JSON file beside ``library`` that says what it was built for."""
    return library.with_suffix(".json")


def rtx_alias_of(library: Path) -> Path:
    """The helper library for TensorRT-RTX beside ``library``."""
    return library.with_name(RTX_ALIAS_NAME)


def opened_with(library: Path) -> tuple[Path, ...]:
    """The files beside ``library`` that the dynamic linker opens together with it, where they are there.

    A library that registers the plugins needs the plugin library and TensorRT-RTX's helper library by their place.
    """
    if not library.name.startswith(_REGISTERING_PREFIX):
        return ()
    return tuple(path for path in (library.with_name(LIBRARY_NAME), rtx_alias_of(library)) if path.exists())


def _packaged() -> Path:
    return _PACKAGE / _WHEEL_FOLDER / LIBRARY_NAME


def _builds() -> Path:
    return _PACKAGE.parent / "build"


def _below_build() -> list[Path]:
    return sorted(_builds().glob(f"*/{LIBRARY_NAME}"))


def _why_not_built(folder: Path) -> str | None:
    """Why ``folder`` is not a build tree of edgeformer, for people; ``None`` if it is one.

    The path that CMake noted is not compared: a tree that was moved or is mounted elsewhere is still one.
    """
    if any(os.path.lexists(folder / mark) for mark in _BUNDLE_MARKS):
        return "a bundle's copy"
    if not all((_PACKAGE.parent / source).is_file() for source in _SOURCES):
        return "not in a source checkout"
    library = folder / LIBRARY_NAME
    if folder.is_symlink() or library.is_symlink():
        return "a link"
    try:
        cache = (folder / _CMAKE_CACHE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"no {_CMAKE_CACHE} beside it, so not where it was built"
    if not _CMAKE_PROJECT.search(cache):
        return "built by another project"
    return None if (folder / _OBJECTS).is_dir() else "no object files beside it, so not where it was built"
