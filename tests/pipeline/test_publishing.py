"""Whatever publishes a bundle puts the page on it into it, and fails for no page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeformer.bundle import Manifest, open_bundle, staging
from edgeformer.bundle.report_file import report_state
from edgeformer.pipeline.publishing import publish
from edgeformer.report.page import environment
from tests.report.conftest import EXAMPLE


def published(target: Path, created: str) -> Path:
    """A bundle with one file."""
    document = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    with staging(target) as work:
        (work.path / "typed.onnx").write_text(created)
        manifest = Manifest.model_validate({**document, "created": created})
        publish(work, manifest.model_copy(update={"files": work.file_records()}))
    return target


def test_the_page_is_the_published_manifests(tmp_path: Path) -> None:
    for created in ("one day", "another day"):
        bundle = published(tmp_path / "named", created)
        assert open_bundle(bundle).created == created
        assert report_state(bundle) == "current"
        page = (bundle / "report.html").read_text(encoding="utf-8")
        assert created in page
        assert "edgeformer verify named" in page


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_its_packages_there_is_a_line_and_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, package: str
) -> None:
    published(tmp_path / "b", "with")
    environment.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    bundle = published(tmp_path / "b", "without")
    assert open_bundle(bundle).created == "without"
    assert not (bundle / "report.html").exists()
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("report.html is left out: the report ")
    assert f" {package} " in message
    assert len(message.splitlines()) == 1
