"""``report.html`` in a bundle: whether it is ours, and whether it shows the manifest that is there.

The page is made from the manifest and so cannot be listed in it: it names the SHA-256 of the manifest that it shows.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Literal

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle.files import MANIFEST, REPORT

__all__ = ["MANIFEST_HASH", "ReportState", "is_report", "report_state", "shown_manifest"]

# Name of the page's <meta> element with the hash.
MANIFEST_HASH = "edgeformer-manifest"
ReportState = Literal["absent", "current", "stale"]

# The element stands at the beginning of the page.
_HEAD = 2048
_META = re.compile(rb'<meta name="' + MANIFEST_HASH.encode() + rb'" content="([0-9a-f]{64}(?: [0-9a-f]{64})*)">')


def shown_manifest(page: Path) -> str | None:
    """The hash of the manifest that a page shows; None where it is not a page of `edgeformer report`."""
    try:
        if not stat.S_ISREG(page.lstat().st_mode):
            return None
        with page.open("rb") as file:
            match = _META.search(file.read(_HEAD))
    except OSError:
        return None
    return match[1].decode() if match else None


def is_report(page: Path) -> bool:
    """Whether a file is a page that edgeformer made, and may make anew."""
    return shown_manifest(page) is not None


def report_state(bundle: Path) -> ReportState:
    """Whether a bundle has a report, and whether that shows the manifest as it is now.

    Raises:
        OSError: the manifest cannot be read.
    """
    shown = shown_manifest(bundle / REPORT)
    if shown is None:
        return "absent"
    return "current" if shown == sha256_of_file(bundle / MANIFEST) else "stale"
