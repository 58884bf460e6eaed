"""As much of a source checkout and of a build tree in it as edgeformer asks for, made of empty files."""

from __future__ import annotations

from pathlib import Path

PROJECT = "CMAKE_PROJECT_NAME:STATIC=edgeformer"


def make_sources(root: Path) -> None:
    """What tells a source checkout from a folder that a package was installed in."""
    (root / "plugins").mkdir(parents=True, exist_ok=True)
    (root / "CMakeLists.txt").touch()
    (root / "plugins" / "library.cmake").touch()


def make_build_tree(folder: Path, cache: str = PROJECT) -> None:
    """What CMake leaves beside a library that was built in ``folder``."""
    (folder / "plugins" / "CMakeFiles" / "edgeformer_plugins.dir").mkdir(parents=True, exist_ok=True)
    (folder / "CMakeCache.txt").write_text(f"# a comment\n{cache}\nCMAKE_PROJECT_VERSION:STATIC=0.1.0\n")
