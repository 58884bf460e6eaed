"""The page: medians, what has no figures, and that it is what the JSON file says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.quantization.__main__ import PAGE, RESULTS
from benchmarks.quantization.tables import BEGIN, END, inserted, medians, tables


def row(subject: str, name: str, snr: float, **more: Any) -> dict[str, Any]:
    column = {"snr_db": snr, "top1": 98.0, "agreement": 99.0, "routing": [96.0, 94.0], "routing_mean": 95.0}
    return {
        "subject": subject,
        "tool": "tool",
        "row": name,
        "clean": column,
        "degraded": {**column, "snr_db": snr - 1},
        "int8": 0.8,
        "weights_8_bit": 0.0,
        "multiply_adds": {"float x float": 10, "float x int4": 20, "fp8 x fp8": 30, "int8 x int8": 40},
        "seconds": 2.0,
        "cpu_seconds": 1.0,
        "peak_mb": 100,
        **more,
    }


def document() -> dict[str, Any]:
    subject = {
        "data": "digits",
        "clean_top1": 98.0,
        "degraded_top1": 85.0,
        "clean_images": 500,
        "degraded_images": 250,
        "degradation_strength": 0.5,
    }
    failed = {"subject": "b", "tool": "tool", "row": "bad", "placement": "own", "failed": "no kernel"}
    return {
        "command": "python -m benchmarks.quantization",
        "date": "2026-11-28",
        "machine": {"processor": "a processor", "cores": 2, "load": 1.0},
        "versions": {"tool": {"tool": "1.0"}},
        "missing": {"other": "no such package"},
        "subjects": {"a": subject, "b": subject},
        "rows": [row("a", "good", 40), row("b", "good", 46), row("a", "bad", 30), failed],
    }


def test_medians_are_over_the_checkpoints_that_have_the_figure() -> None:
    found = medians(document(), lambda one: one["clean"]["snr_db"])
    assert found == {("tool", "good"): 43, ("tool", "bad"): 30}


def test_every_row_is_shown_with_its_figures_or_why_it_has_none() -> None:
    lines = tables(document()).splitlines()
    good = "43.0 | 42.0 | 95.0 | 95.0 | 98.0 | 98.0 | 99.0 | 99.0 | 80% | 0% | 50% | 2.0 | 1.0 | 100"
    assert f"| tool | good | {good} |" in lines
    assert "| tool | good | 40.0 / 39.0 | 46.0 / 45.0 |" in lines
    assert "| tool | bad | 30.0 / 29.0 | - |" in lines
    assert "| tool | good | 96 94 | 96 94 |" in lines
    assert "- tool, bad (b): `no kernel`" in lines
    assert "Could not be installed here: other: no such package." in lines


def test_what_stands_around_the_tables_stays() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nMore.\n"
    made = inserted(page, document())
    assert made.startswith(f"# Title\n\n{BEGIN}\n\n`python -m")
    assert made.endswith(f"{END}\n\nMore.\n")
    assert "old" not in made
    assert inserted(made, document()) == made


@pytest.mark.parametrize("page", ["no markers", f"{END} {BEGIN}", f"{BEGIN} {END} {END}", BEGIN])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        inserted(page, document())


def test_the_page_is_what_the_figures_say() -> None:
    page = PAGE.read_text()
    assert inserted(page, json.loads(RESULTS.read_text())) == page
