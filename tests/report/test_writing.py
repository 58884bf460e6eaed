"""`report.html` in a bundle: whole, never stale without being told so, and never in the place of somebody's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer.bundle import open_bundle
from edgeformer.bundle.contents import unlisted_files
from edgeformer.bundle.report_file import report_state
from edgeformer.report import compare_bundles, renew_report, write_report
from tests.raising import raises
from tests.report.conftest import edited


def test_the_page_is_no_foreign_file_and_changes_no_hash(bundle: Path) -> None:
    before = open_bundle(bundle)
    assert report_state(bundle) == "absent"
    assert write_report(bundle) == bundle / "report.html"
    assert report_state(bundle) == "current"
    assert open_bundle(bundle) == before
    assert unlisted_files(bundle, set(before.files)) == ()


def test_a_stale_page_is_known_and_renewed(bundle: Path) -> None:
    write_report(bundle)
    edited(bundle, lambda document: document["accuracy"]["int8"].update(value=12.34))
    assert report_state(bundle) == "stale"
    assert renew_report(bundle) is None
    assert report_state(bundle) == "current"
    assert "12.34 %" in (bundle / "report.html").read_text(encoding="utf-8")


def test_a_page_elsewhere_leaves_the_bundle_alone(bundle: Path, tmp_path: Path) -> None:
    assert write_report(bundle, tmp_path / "page.html") == tmp_path / "page.html"
    assert report_state(bundle) == "absent"
    compare_bundles([bundle, bundle], tmp_path / "two.html")
    assert "side by side" in (tmp_path / "two.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_somebodys_file_stays(bundle: Path, tmp_path: Path, kind: str) -> None:
    page = bundle / "report.html"
    if kind == "file":
        page.write_text("<h1>mine</h1>")
    elif kind == "folder":
        page.mkdir()
    else:
        page.symlink_to(tmp_path / "nowhere")
    with raises("EF950", page, "-o"):
        write_report(bundle)
    assert renew_report(bundle) == "report.html is left as it is: edgeformer did not make it"
    assert "report.html" in unlisted_files(bundle, set()) or kind == "folder"


@pytest.mark.parametrize("package", ["jinja2", "matplotlib", "PIL"])
def test_without_the_packages_there_is_no_page_and_a_reason(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    write_report(bundle)
    from edgeformer.report.page import environment

    environment.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with raises("EF601", package, "pip install "):
        write_report(bundle)
    reason = renew_report(bundle)
    assert reason is not None
    assert reason.startswith("report.html is left out: the report ")
    assert f" {package} " in reason or package == "PIL"
    assert len(reason.splitlines()) == 1
    assert report_state(bundle) == "absent"


def test_a_device_without_any_of_them_can_still_publish() -> None:
    """The room is imported by what finishes a bundle there; Pillow and what draws are only needed to draw."""
    missing = ("PIL", "jinja2", "matplotlib", "onnx", "onnxruntime", "torch")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import edgeformer.report"
    subprocess.run([sys.executable, "-c", code], check=True)
