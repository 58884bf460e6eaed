"""Sphinx makes the documentation site: ``sphinx-build -W -n docs/site build/site``, as scripts/test does.

The pages lie where they are in the repository, so that their links work there as well as on the site: Sphinx reads
copies of them, which are made here in a folder with the repository's folders in it. Nothing is fetched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "build" / "site_pages"
# What is a page, or is linked to from one. Whole folders are not taken: calibration/ alone has 700 images.
PATTERNS = (
    "*.md",
    "docs/*.md",
    "docs/measurements/*",
    "calibration/*.md",
    "checkpoints/*/*.md",
    "examples/**/*.md",
    "examples/**/*.py",
    "examples/**/*.json",
    "examples/**/*.c",
    "examples/**/*.cpp",
    "docs/*.json",
    "plugins/tests/*.md",
    "runtime/*.md",
)

project = "edgeformer"
author = "the edgeformer contributors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "edgeformer"
html_copy_source = False
root_doc = "index"
myst_heading_anchors = 3
# Only what names its language is coloured.
highlight_language = "text"


def pages(root: Path) -> Iterator[Path]:
    """The files of the site, relative to the repository's root."""
    for pattern in PATTERNS:
        yield from (path.relative_to(root) for path in sorted(root.glob(pattern)) if path.is_file())


def copy_pages(root: Path, folder: Path) -> None:
    """Make ``folder`` anew, with a copy of each file, and of the table of contents beside this file."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages(root):
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / page, folder / page)
    shutil.copy2(Path(__file__).with_name("index.md"), folder)


def setup(app: Any) -> None:
    """Called by Sphinx, with its application, before it looks for pages."""
    copy_pages(ROOT, PAGES)
    app.srcdir = type(app.srcdir)(PAGES)
