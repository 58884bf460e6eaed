"""What the pages say of the repository: the paths they name are there, and the site has every page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {path.name for path in ROOT.iterdir()}
PLUGIN = "plugins/bi_level_routing_attention"


def paths_in(text: str) -> list[str]:
    """What stands in backticks and looks like a path of the repository; NAME and X are placeholders."""
    named = re.findall(r"`([\w./-]+/[\w./-]*)`", text)
    return [path for path in named if path.split("/")[0] in TOP_LEVEL and not re.search(r"\bNAME\b|_NAME\b", path)]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_it_names_exists(page: str) -> None:
    named = paths_in((ROOT / page).read_text())
    assert len(named) >= 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_file_named_within_its_folder_exists() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("### a kernel variant")[1].split("### an attribute")[0]
    named = {name for name in re.findall(r"`(\w+\.(?:h|cpp|cu))`", section) if "NAME" not in name}
    assert {"variants.h", "attention.cu", "c_api.cpp"} <= named
    places = [ROOT / PLUGIN, ROOT / "plugins" / "tests" / "bi_level_routing_attention"]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_a_path_that_is_not_there_is_seen() -> None:
    assert paths_in("`edgeformer/gone.py`, `pages/x.py`, `edgeformer/pipeline/stages/NAME.py`") == [
        "edgeformer/gone.py"
    ]


def test_the_changelog_has_the_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert version[1] in headings


def test_the_site_has_every_page() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    contents = (ROOT / "docs" / "site" / "index.md").read_text()
    on_site = set(re.findall(r"^(\S+\.md)$", contents, re.MULTILINE))
    assert set(listed) - on_site == {"docs/site/index.md", "tests/assets/reference_onnx/README.md"}
