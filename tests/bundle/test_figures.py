"""Figures in words: the command line and the report have them from here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeformer.bundle import Manifest
from edgeformer.bundle.figures import accuracy_lines, attention_line, engine_line, percent, score_text, stage_time
from tests.present import present

EXAMPLE = Path(__file__).parents[2] / "docs" / "manifest.example.json"


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("value", "text"), [(100.0, "100 %"), (97.8, "97.8 %"), (99.996, "100 %"), (0.0, "0 %"), (33.333, "33.33 %")]
)
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


def test_lines_of_a_build(document: dict[str, Any]) -> None:
    for precision, value in (("fp32", 97.8), ("fp16", 97.5), ("int8", 42.0)):
        document["accuracy"][precision]["value"] = value
    document["files"]["model.engine"]["size"] = 1_234_567
    document["stages"][0].update(seconds=1.25, reused=True)
    manifest = Manifest.model_validate(document)
    lines = list(accuracy_lines(manifest))
    assert lines[0] == "top-1 accuracy FP32    97.8 %   of 500 labelled images"
    assert lines[1].startswith("top-1 accuracy FP16    97.5 %   of 500 labelled images, ")
    assert lines[1].endswith(" dB from FP32")
    assert lines[2].startswith("top-1 accuracy INT8      42 %   of 500 labelled images, ")
    assert engine_line(manifest) == "1.23 MB for rtx-40 (SM 89), 4 plugin layers"
    assert attention_line(manifest) is None
    assert stage_time(manifest.stages[0]) == "1.2 s, reused"


def test_other_units(document: dict[str, Any]) -> None:
    document["accuracy"]["int8"].update(value=0.5, unit="mIoU")
    assert score_text(present(Manifest.model_validate(document).accuracy.get("int8"))) == "0.50 mIoU"
    assert score_text(None) == ""


def test_without_an_engine_there_is_no_line(document: dict[str, Any]) -> None:
    del document["files"]["model.engine"]
    assert engine_line(Manifest.model_validate(document)) is None
