"""Links that lead out of a bundle are refused, and files that its manifest does not list are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.bundle import open_bundle
from edgeformer.bundle.contents import unlisted_files, unlisted_line
from tests.bundle.test_publish import _publish
from tests.raising import raises


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    _publish(tmp_path / "bundle", "one")
    return tmp_path / "bundle"


@pytest.mark.parametrize("name", ["a.txt", "manifest.json", "libother.so", "folder/deep"])
@pytest.mark.parametrize("relative", [False, True])
def test_links_that_lead_out_are_refused(bundle: Path, name: str, relative: bool) -> None:
    """Even to a file of the very content that the manifest lists: what it leads to changes without the bundle."""
    outside = bundle.parent / "outside"
    link = bundle / name
    link.parent.mkdir(exist_ok=True)
    if link.exists():
        link.rename(outside)
    link.symlink_to(Path("../" * name.count("/"), "../outside") if relative else outside)
    with raises("EF771", bundle, name, "outside"):
        open_bundle(bundle)


def test_links_to_folders_and_to_nothing_outside_are_refused_too(bundle: Path) -> None:
    (bundle / "home").symlink_to(bundle.parent)
    (bundle / "nothing").symlink_to("/nowhere/at/all")
    with raises("EF771", "home", "nothing -> /nowhere/at/all"):
        open_bundle(bundle)


def test_links_within_a_bundle_and_to_it_are_followed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "a.txt").rename(bundle / "b.txt")
    (bundle / "a.txt").symlink_to("b.txt")
    (tmp_path / "linked").symlink_to(bundle)
    assert set(open_bundle(tmp_path / "linked").files) == {"a.txt"}


def test_a_link_in_a_circle_is_a_missing_file(bundle: Path) -> None:
    (bundle / "a.txt").unlink()
    (bundle / "a.txt").symlink_to("a.txt")
    with raises("EF704", "a.txt"):
        open_bundle(bundle)


def test_what_the_manifest_does_not_list_is_named(bundle: Path) -> None:
    assert unlisted_files(bundle, {"a.txt"}) == ()
    for name in ("manifest.sig", "libother.so", "deep/er/x"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).touch()
    (bundle / "b").symlink_to("a.txt")
    assert unlisted_files(bundle, {"a.txt"}) == ("b", "deep/er/x", "libother.so")
    assert unlisted_files(bundle, {"b", "deep/er/x"}) == ("a.txt", "libother.so")


def test_the_line_is_short_and_steers_no_terminal() -> None:
    line = unlisted_line(("\x1b[31mred", *map(str, range(20))))
    assert line.endswith("[31mred, 0, 1, 2, 3, 4, 5, 6 and 13 more")
    assert line.isprintable()
