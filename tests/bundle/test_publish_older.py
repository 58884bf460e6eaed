"""A bundle of an older schema version in the way of a build: it is replaced, and what is somebody's stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer.artifacts import MARKER, sha256_of_bytes
from edgeformer.bundle import open_bundle, staging
from tests.bundle.test_publish import _publish as publish
from tests.raising import raises


def older_version(target: Path) -> None:
    """Make a bundle one of an older schema version, with a record that this one does not know."""
    content = json.loads((target / "manifest.json").read_text())
    content = {"schema_version": 1, "files": content["files"], "edgeformer": "0.0.1", "machine": {}}
    (target / "manifest.json").write_text(json.dumps(content))


def test_a_bundle_of_an_older_version_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    publish(target, "one", key="k1")
    older_version(target)
    (target / "precious.txt").write_text("mine")
    with staging(target) as work:
        assert work.reusable("s", "k1") is None
    publish(target, "two", key="k1")
    assert open_bundle(target).stages[0].key == "k1"
    assert (target / "a.txt").read_text() == "two"
    assert (target / "precious.txt").read_text() == "mine"


def test_of_an_older_version_what_was_changed_is_somebodys(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    publish(target, "one")
    older_version(target)
    (target / "a.txt").write_text("mine")
    with raises("EF708", target / "a.txt"):
        publish(target, "two")
    assert (target / "a.txt").read_text() == "mine"


def test_an_older_version_without_the_mark_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    publish(target, "one")
    older_version(target)
    (target / MARKER).unlink()
    with raises("EF705", target):
        publish(target, "two")
    assert (target / "a.txt").read_text() == "one"


@pytest.mark.parametrize("name", ["../precious.txt", "", "..", "a/b"])
def test_an_older_version_that_names_files_outside_is_refused(tmp_path: Path, name: str) -> None:
    target = tmp_path / "bundle"
    publish(target, "one")
    older_version(target)
    content = json.loads((target / "manifest.json").read_text())
    content["files"][name] = {"sha256": sha256_of_bytes(b"mine"), "size": 4}
    (target / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "precious.txt").write_text("mine")
    with raises("EF705", target):
        publish(target, "two")
    assert (tmp_path / "precious.txt").read_text() == "mine"
