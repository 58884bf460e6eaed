"""`edgeformer report`: one page, in the bundle or elsewhere, and several bundles on one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.conftest import edited, make_bundle


def report(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeformer", "report", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_page_in_the_bundle_elsewhere_and_on_two(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    result = report(first, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"written: {first / 'report.html'}\n"
    result = report("a", "-o", "elsewhere/page.html", "--json", cwd=tmp_path)
    size = (tmp_path / "elsewhere" / "page.html").stat().st_size
    assert json.loads(result.stdout) == {"bundles": ["a"], "page": "elsewhere/page.html", "bytes": size}
    assert 10_000 < size < 1_000_000
    assert report("a", "b", "-o", "two.html", cwd=tmp_path).returncode == 0
    assert "2 bundles side by side" in (tmp_path / "two.html").read_text(encoding="utf-8")
    assert not (second / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        ([], "EF103", ["BUNDLE"]),
        (["a", "a"], "EF103", ["2 bundles", "-o"]),
        (["nowhere"], "EF701", ["nowhere"]),
        (["a", "-o", "a/typed.onnx"], "EF131", ["typed.onnx"]),
        (["a", "-o", "a/manifest.json"], "EF131", ["manifest.json"]),
        (["a", "-o", "a"], "EF102", ["is a folder"]),
    ],
)
def test_what_is_refused(tmp_path: Path, words: list[str], code: str, names: list[str]) -> None:
    bundle = make_bundle(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    result = report(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error {code}: ")
    assert all(name in result.stderr for name in names)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_damaged_bundle_has_no_page(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a")
    (bundle / "typed.onnx").write_bytes(b"other")
    result = report("a", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error EF704: ")
    assert not (bundle / "report.html").exists()


def test_inspect_names_a_stale_page_and_no_other(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a")
    words = [sys.executable, "-m", "edgeformer", "inspect", "a"]

    def inspected(*more: str) -> str:
        return subprocess.run([*words, *more], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert json.loads(inspected("--json"))["report"] == "absent"
    assert report("a", cwd=tmp_path).returncode == 0
    current = inspected()
    assert "report      a/report.html" in current
    assert "not in the manifest" not in current
    edited(bundle, lambda document: document["libraries"].update(torch="9.9"))
    assert "report.html shows another manifest: `edgeformer report a` makes it anew" in inspected()
    assert json.loads(inspected("--json"))["report"] == "stale"
