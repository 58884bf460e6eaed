"""A page is ours by what stands at its beginning, and current by the hash that it names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeformer.bundle.report_file import is_report, report_state, shown_manifest

MANIFEST = b'{"schema_version": 3}'
HASH = hashlib.sha256(MANIFEST).hexdigest()


def page(*hashes: str) -> str:
    return f'<!DOCTYPE html>\n<meta name="edgeformer-manifest" content="{" ".join(hashes)}">\n<p>...'


@pytest.mark.parametrize(
    ("text", "shown", "state"),
    [
        (page(HASH), HASH, "current"),
        (page("0" * 64), "0" * 64, "stale"),
        (page(HASH, "0" * 64), f"{HASH} {'0' * 64}", "stale"),
        (page("0" * 63), None, "absent"),
        ("<h1>mine</h1>", None, "absent"),
        (" " * 4096 + page(HASH), None, "absent"),
    ],
)
def test_states(tmp_path: Path, text: str, shown: str | None, state: str) -> None:
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "report.html").write_text(text)
    assert shown_manifest(tmp_path / "report.html") == shown
    assert is_report(tmp_path / "report.html") == (shown is not None)
    assert report_state(tmp_path) == state


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    assert shown_manifest(tmp_path / "nowhere") is None
    assert shown_manifest(tmp_path) is None
    (tmp_path / "there").write_text(page(HASH))
    (tmp_path / "link").symlink_to("there")
    assert shown_manifest(tmp_path / "link") is None
