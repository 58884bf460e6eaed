"""The files of our own libraries: their names, where they are looked for, and how a build tree is recognized.

Whatever needs one of them asks this module for its place, so that only the installation's own library is ever taken:
never the copy in a bundle, wherever the bundle is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BUILD_COMMAND",
    "ENVIRONMENT_VARIABLE",
    "LIBRARY_NAME",
    "PLUGINS",
    "RTX_ALIAS_NAME",
    "RUNTIME",
    "OwnLibrary",
    "candidate_paths",
    "cpu_of",
    "development_builds",
    "library_for",
    "metadata_of",
    "registered_by",
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
# What a bundle has and a build tree has not: one unpacked into a build tree, even without its manifest, has some of it.
_BUNDLE_MARKS = ("manifest.json", "manifest.sig", "parity.npz", "exported.onnx", "model.engine")
# Where an ELF file has its processor, and the two that there is TensorRT for.
_ELF_MACHINE = slice(18, 20)
_CPUS = {62: "x86_64", 183: "aarch64"}
_CMAKE_CACHE = "CMakeCache.txt"
_CMAKE_PROJECT = re.compile(r"^CMAKE_PROJECT_NAME:\w+=edgeformer$", re.MULTILINE)


@dataclass(frozen=True)
class OwnLibrary:
    """One of the libraries that this project builds.

    Attributes:
        name: its file name.
        variable: the environment variable that names another one to take.
        wheel_folder: folder of the package in which a wheel has it.
        objects: where CMake puts its object files in a build tree, with every generator.
        sources: files of a source checkout that such a tree is built from, beside the package.
    """

    name: str
    variable: str
    wheel_folder: str
    objects: Path
    sources: tuple[Path, ...]


PLUGINS = OwnLibrary(
    LIBRARY_NAME,
    ENVIRONMENT_VARIABLE,
    "_plugins",
    Path("plugins", "CMakeFiles", "edgeformer_plugins.dir"),
    (Path("CMakeLists.txt"), Path("plugins", "library.cmake")),
)
RUNTIME = OwnLibrary(
    "libedgeformer.so",
    "EDGEFORMER_RUNTIME_LIBRARY",
    "_runtime",
    Path("runtime", "CMakeFiles", "edgeformer_runtime.dir"),
    (Path("CMakeLists.txt"), Path("runtime", "CMakeLists.txt")),
)


def candidate_paths(library: OwnLibrary = PLUGINS) -> tuple[Path, ...]:
    """The files of this installation that are such a library, best first.

    Returns:
        The file that the environment variable names, whether it exists or not. Without the variable those that exist:
        the wheel's, then those of the build trees, newest first.
    """
    if chosen := os.environ.get(library.variable):
        return (Path(chosen).absolute(),)
    packaged = _packaged(library)
    return (*([packaged] if packaged.is_file() else []), *development_builds(library))


def library_for(cpu: str, library: OwnLibrary = PLUGINS) -> Path | None:
    """The best of `candidate_paths` for a processor, perhaps a cross-compiled one; ``None`` if there is none.

    Args:
        cpu: the processor, as ``platform.machine()`` names it.
        library: the library.
    """
    return next((path for path in candidate_paths(library) if cpu_of(path) == cpu), None)


def cpu_of(path: Path) -> str | None:
    """The processor of a library, as ``platform.machine()`` names it; ``None`` where its header does not tell."""
    try:
        with path.open("rb") as file:
            header = file.read(_ELF_MACHINE.stop)
    except OSError:
        return None
    return _CPUS.get(int.from_bytes(header[_ELF_MACHINE], "little")) if header[:4] == b"\x7fELF" else None


def development_builds(library: OwnLibrary = PLUGINS) -> tuple[Path, ...]:
    """The files that are such a library in the build trees beside the package, ``build/*/``, newest first.

    Only in a source checkout: beside an installed package ``build/`` is anybody's.
    """
    built = [path for path in _below_build(library) if _why_not_built(path.parent, library) is None]
    return tuple(sorted(built, key=lambda path: path.stat().st_mtime, reverse=True))


def searched_places(library: OwnLibrary = PLUGINS) -> str:
    """Where `candidate_paths` looks, and what it passes over and why: for the message that nothing was found."""
    if chosen := os.environ.get(library.variable):
        return f"looked for: {chosen}, named in ${library.variable}"
    places = f"looked for: {_packaged(library)}, {_builds() / '*' / library.name}"
    reasons = ((path, _why_not_built(path.parent, library)) for path in _below_build(library))
    passed_over = "; ".join(f"{path} ({reason})" for path, reason in reasons if reason)
    return f"{places}; passed over: {passed_over}" if passed_over else places


def metadata_of(library: Path) -> Path:
    """The JSON file beside ``library`` that says what it was built for."""
    return library.with_suffix(".json")


def rtx_alias_of(library: Path) -> Path:
    """The helper library for TensorRT-RTX beside ``library``."""
    return library.with_name(RTX_ALIAS_NAME)


def registered_by(library: Path) -> Path:
    """The plugin library whose plugins a library registers as it is opened; one that does not is itself.

    A library that registers plugins opens the plugin library in its own folder.
    """
    return library.with_name(LIBRARY_NAME) if library.name.startswith(_REGISTERING_PREFIX) else library


def _packaged(library: OwnLibrary) -> Path:
    return _PACKAGE / library.wheel_folder / library.name


def _builds() -> Path:
    return _PACKAGE.parent / "build"


def _below_build(library: OwnLibrary) -> list[Path]:
    return sorted(_builds().glob(f"*/{library.name}"))


def _why_not_built(folder: Path, library: OwnLibrary) -> str | None:
    """Why ``folder`` is not a build tree of edgeformer, for people; ``None`` if it is one.

    The path that CMake noted is not compared: a tree that was moved or is mounted elsewhere is still one.
    """
    if any(os.path.lexists(folder / mark) for mark in _BUNDLE_MARKS):
        return "a bundle's copy"
    if not all((_PACKAGE.parent / source).is_file() for source in library.sources):
        return "not in a source checkout"
    if folder.is_symlink() or (folder / library.name).is_symlink():
        return "a link"
    try:
        cache = (folder / _CMAKE_CACHE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"no {_CMAKE_CACHE} beside it, so not where it was built"
    if not _CMAKE_PROJECT.search(cache):
        return "built by another project"
    return None if (folder / library.objects).is_dir() else "no object files beside it, so not where it was built"
