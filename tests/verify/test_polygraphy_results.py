"""What each form gave, in files that Polygraphy's own tools read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeformer.verify.polygraphy_results import PolygraphyResults
from tests.raising import raises


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = np.arange(3, dtype=np.float32)
    PolygraphyResults(tmp_path).add("typed", {"x": values}, {"y": values})
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"inputs.json", "typed.json"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with raises("EF102", tmp_path / "file"):
        PolygraphyResults(tmp_path / "file" / "outputs")
    with raises("EF102", tmp_path / "file"):
        PolygraphyResults(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
