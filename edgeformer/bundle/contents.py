"""What lies in a bundle's folder beside the files that its manifest lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgeformer.artifacts import MARKER
from edgeformer.bundle.files import MANIFEST, REPORT, SIGNATURE
from edgeformer.bundle.report_file import is_report
from edgeformer.errors import InputError
from edgeformer.text import printable

__all__ = ["check_links", "unlisted_files", "unlisted_line"]

_SHOWN = 8


def check_links(bundle: Path) -> None:
    """Refuse symbolic links that lead out of a bundle, in whatever folder of it they lie and whether listed or not.

    Raises:
        InputError: there are some; the message names them.
    """
    root = os.path.realpath(bundle)
    leading_out = [
        f"{path.relative_to(bundle)!s} -> {os.readlink(path)}"
        for path in _entries(bundle)
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root)
    ]
    if leading_out:
        raise InputError(
            "EF771",
            f"{bundle}: links lead out of the bundle: {_some(leading_out)}. A bundle holds its files itself: put the "
            "files in place of the links, or remove them",
        )


def unlisted_files(bundle: Path, listed: set[str]) -> tuple[str, ...]:
    """The files and links in a bundle's folder that its manifest does not list: unchecked, and never loaded.

    Args:
        bundle: the folder.
        listed: names of the files that the manifest lists.

    Returns:
        Their paths in the bundle, sorted; the manifest, its signature and the report on it are not among them.
    """
    known = {*listed, MANIFEST, MARKER, SIGNATURE}
    if is_report(bundle / REPORT):
        known.add(REPORT)
    found = (path.relative_to(bundle).as_posix() for path in _entries(bundle) if not path.is_dir() or path.is_symlink())
    return tuple(sorted(name for name in found if name not in known))


def unlisted_line(names: tuple[str, ...]) -> str:
    """What to say of the files that a manifest does not list."""
    return f"not in the manifest, so not checked and never loaded: {_some(list(names))}"


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _entries(bundle: Path) -> Iterator[Path]:
    """Everything below the folder; links are named and not followed."""
    for folder, folders, files in os.walk(bundle):
        for name in (*folders, *files):
            yield Path(folder, name)
