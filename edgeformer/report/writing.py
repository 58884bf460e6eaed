"""Writing pages: ``report.html`` in a bundle, one on a bundle elsewhere, and one on several bundles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgeformer.artifacts import sha256_of_file, write_text
from edgeformer.bundle.files import MANIFEST, REPORT
from edgeformer.bundle.manifest import read_manifest
from edgeformer.bundle.report_file import is_report
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.report.comparison import comparison_page
from edgeformer.report.page import Subject, bundle_page

__all__ = ["compare_bundles", "renew_report", "write_report"]


def write_report(bundle: Path, output: Path | None = None, *, name: str | None = None) -> Path:
    """Write the page on a bundle, whole or not at all.

    Args:
        bundle: the bundle's folder; its manifest is read, and its files are not hashed but for the one that is shown.
        output: the page; None is ``report.html`` in the bundle.
        name: what the page calls the bundle; None is its folder's name.

    Returns:
        The page's path.

    Raises:
        InputError: no bundle, or its ``report.html`` is not one of edgeformer's.
        EnvironmentFault: jinja2 or matplotlib is not installed.
        OSError: the page cannot be written.
    """
    page = bundle / REPORT if output is None else output
    if output is None and _is_somebodys(page):
        raise InputError(
            "EF950",
            f"{page} is no page that edgeformer made, and is not replaced: move it elsewhere, or name the new page "
            "with -o",
        )
    write_text(page, bundle_page(_subject(bundle, name)))
    return page


def renew_report(bundle: Path, *, name: str | None = None) -> str | None:
    """Bring a bundle's ``report.html`` up to its manifest: for every command that writes one.

    Args:
        bundle: the bundle's folder, in its place or in the making.
        name: as for `write_report`.

    Returns:
        None; where there is no such page afterwards, the reason. What is there of somebody else's stays; a page of ours
        that cannot be made anew is removed, since it shows another manifest.

    Raises:
        InputError: no bundle.
        OSError: the page cannot be written.
    """
    if _is_somebodys(bundle / REPORT):
        return f"{REPORT} is left as it is: edgeformer did not make it"
    try:
        write_report(bundle, name=name)
    except EnvironmentFault as fault:
        if is_report(bundle / REPORT):
            (bundle / REPORT).unlink()
        return f"{REPORT} is left out: {fault}"
    return None


def _is_somebodys(page: Path) -> bool:
    return os.path.lexists(page) and not is_report(page)


def compare_bundles(bundles: Sequence[Path], output: Path) -> Path:
    """Write a page with several bundles side by side.

    Args:
        bundles: their folders, at least two.
        output: the page.

    Raises:
        InputError: one of them is no bundle.
        EnvironmentFault: jinja2 or matplotlib is not installed.
        OSError: the page cannot be written.
    """
    write_text(output, comparison_page([_subject(bundle, None) for bundle in bundles]))
    return output


def _subject(bundle: Path, name: str | None) -> Subject:
    manifest = read_manifest(bundle)
    return Subject(
        path=bundle,
        name=name or bundle.resolve().name,
        manifest=manifest,
        sha256=sha256_of_file(bundle / MANIFEST),
    )
