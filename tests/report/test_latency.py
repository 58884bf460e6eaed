"""Latency on a page: the manifest's figures, in the words of `edgeformer bench`, and a plot for each batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.bundle import read_manifest
from edgeformer.report.charts import Line, times_chart
from edgeformer.report.comparison import compared_groups
from edgeformer.report.content import key_figures
from edgeformer.report.latency import latency_content
from edgeformer.report.page import bundle_page
from tests.present import present
from tests.report.conftest import Document, edited, make_bundle, stage, subject_of
from tests.report.test_page import words


def distribution(median: float, samples: int = 800) -> dict[str, Any]:
    """Times around a median, in milliseconds; with fewer than 662 there is no p99."""
    quantiles = [float(value) for value in median * np.geomspace(0.95, 1.3, 201)]
    percentile = {"ms": median, "needs": 1}
    p99 = {"ms": 1.25 * median if samples >= 662 else None, "needs": 662}
    return {
        "samples": samples,
        "p50": percentile,
        "p90": {"ms": 1.1 * median, "needs": 64},
        "p99": p99,
        "max": {"ms": 1.3 * median, "needs": 1},
        "mean_ms": median,
        "cv": 0.034,
        "quantiles_ms": quantiles,
        "block_medians_ms": [median] * 20,
    }


def figures(name: str, median: float, batch: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "backend": "tensorrt",
        "backend_version": "1.7",
        "device": "RTX 4090",
        "batch": batch,
        "end_to_end": distribution(median),
        "gpu": distribution(0.5 * median),
        "images_per_second": 1000 / median,
        "warm_up": {"runs": 100, "seconds": 1.0, "drift": 0.001, "settled": True},
        **more,
    }


def with_latency(document: Document) -> None:
    """Put a measurement into a manifest: the bundle ``b`` beside another one and a baseline."""
    measured = [
        figures("b", 1.234),
        figures("other", 2.345, notes=["a note of this test"]),
        figures("onnxruntime", 9.876, kind="baseline", gpu=None, end_to_end=distribution(9.876, samples=300)),
        figures("b", 1.2, kind="control"),
        figures("b", 7.5, batch=8),
    ]
    comparison = {
        "name": "other",
        "reference": "b",
        "batch": 1,
        "timing": "end_to_end",
        "statistic": "median",
        "ratio": 1.9,
        "low": 1.88,
        "high": 1.92,
        "noise": 0.004,
        "limit": 0.02,
        "rounds": 20,
        "verdict": "slower",
    }
    load = {"cores": 0.1, "of_cores": 2, "limit_cores": 0.2, "rounds": 20, "disturbed": 3}
    report = {
        "measured": "2026-11-28T13:00:00+00:00",
        "figures": measured,
        "comparisons": [comparison],
        "load": load,
        "machine": {"processor": "a processor", "cores": 2, "gpu": "RTX 4090", "versions": {}},
        "advice": {"ship": "b", "text": "ship b: it is faster", "batch": 1},
    }
    details = {"stage": "latency", "name": "b", "report": report}
    document["stages"].append({"name": "latency", "key": "", "seconds": 20.0, "details": details})


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "b", with_latency)


def test_without_a_measurement_there_is_no_section(bundle: Path) -> None:
    assert latency_content(read_manifest(bundle)) is None
    assert "Latency" not in words(bundle_page(subject_of(bundle)))


def test_the_figures_are_the_manifests(measured: Path) -> None:
    found = present(latency_content(read_manifest(measured)))
    rows = [(row.name, row.timing, row.batch, row.p50, row.p99, row.own) for row in found.rows]
    assert rows == [
        ("b", "end to end", 1, "1.234 ms", "1.542 ms", True),
        ("b", "GPU", 1, "0.617 ms", "0.771 ms", True),
        ("other", "end to end", 1, "2.345 ms", "2.931 ms", False),
        ("other", "GPU", 1, "1.173 ms", "1.466 ms", False),
        ("onnxruntime", "end to end", 1, "9.876 ms", "300 of 662 samples", False),
        ("b", "end to end", 8, "7.500 ms", "9.375 ms", True),
        ("b", "GPU", 8, "3.750 ms", "4.688 ms", True),
    ]
    text = words(bundle_page(subject_of(measured)))
    for line in ("ship b: it is faster", "3 of 20 rounds were disturbed", "other: a note of this test", "3.4 %"):
        assert line in text
    assert (
        "other against b, end to end, median, batch 1: slower (1.900 of its time, 95 % interval 1.880 to 1.920)" in text
    )


def test_the_page_follows_the_manifest(measured: Path) -> None:
    def edit(document: Document) -> None:
        stage(document, "latency")["details"]["report"]["figures"][0]["end_to_end"]["p50"]["ms"] = 4.321

    edited(measured, edit)
    text = words(bundle_page(subject_of(measured)))
    assert text.count("4.321 ms") == 2  # among the key figures, and in the table


def test_a_plot_for_each_batch(measured: Path) -> None:
    found = present(latency_content(read_manifest(measured)))
    assert [batch for batch, _ in found.plots] == [1, 8]
    page = bundle_page(subject_of(measured))
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert len(set(identifiers)) == len(identifiers)
    assert len(page.encode()) < 1_000_000


def test_key_figures_and_rows_side_by_side(measured: Path, tmp_path: Path) -> None:
    manifest = read_manifest(measured)
    found = {figure.name: figure for figure in key_figures(manifest)}
    assert (found["end to end at batch 1"].text, found["end to end at batch 8"].text) == ("1.234 ms", "7.500 ms")

    def slower(document: Document) -> None:
        with_latency(document)
        stage(document, "latency")["details"]["report"]["figures"][0]["end_to_end"]["p50"]["ms"] = 4.321

    other = read_manifest(make_bundle(tmp_path / "other", slower))
    rows = {row.name: row for _, group in compared_groups([manifest, other]) for row in group}
    assert rows["end to end at batch 1"].texts == ("1.234 ms", "4.321 ms")
    assert rows["end to end at batch 1"].best == {0}


@pytest.mark.parametrize("values", [(1.0,), (1.0, 1.0), tuple(float(value) for value in range(1, 202))])
def test_any_times_can_be_drawn(values: tuple[float, ...]) -> None:
    svg = times_chart([Line("a", values, True), Line("<b>", values, False)], "ms", "times")
    assert "&lt;b&gt;" in svg
    assert "nan" not in svg.lower()
