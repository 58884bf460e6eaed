"""Bundles side by side: the same figures in the same rows, and what differs is marked."""

from __future__ import annotations

import re
from pathlib import Path

from edgeformer.bundle import read_manifest
from edgeformer.report.comparison import ComparedRow, compared_groups, comparison_page
from tests.report.conftest import Document, make_bundle, stage, subject_of


def other(document: Document) -> None:
    document["accuracy"]["int8"]["value"] = 91.5
    document["accuracy"]["fp32"]["value"] = 99.0
    document["target"]["name"] = "rtx-50"
    document["libraries"]["torch"] = "9.9"
    document["files"]["typed.onnx"]["sha256"] = "f" * 64
    stage(document, "parity")["details"]["blocks"][0]["snr_db"] = 11.0
    document["stages"] = [one for one in document["stages"] if one["name"] != "plugin-comparison"]


def rows_of(*bundles: Path) -> dict[str, ComparedRow]:
    groups = compared_groups([read_manifest(bundle) for bundle in bundles])
    return {row.name: row for _, rows in groups for row in rows}


def test_a_bundle_does_not_differ_from_itself(bundle: Path) -> None:
    rows = rows_of(bundle, bundle)
    assert not [name for name, row in rows.items() if row.differs]
    assert {"top-1 accuracy INT8", "parity", "stages.2.1", "precision", "torch", "typed.onnx"} <= rows.keys()


def test_what_differs_is_marked_and_the_better_figure_too(bundle: Path, tmp_path: Path) -> None:
    second = make_bundle(tmp_path / "second", other)
    rows = rows_of(bundle, second)
    first_part = next(iter(name for name, row in rows.items() if row.texts[1] == "11.0 dB"))
    assert {name for name, row in rows.items() if row.differs} == {
        *("top-1 accuracy INT8", "top-1 accuracy FP32", "engine", "target", "torch", "typed.onnx"),
        *(first_part, "plugin-comparison"),
    } - {"engine"}
    int8, fp32 = rows["top-1 accuracy INT8"], rows["top-1 accuracy FP32"]
    assert int8.texts[1] == "91.5 %"
    assert [*int8.best, *fp32.best] == [0, 1]
    assert rows["target"].best == frozenset()
    assert rows["plugin-comparison"].texts[1] == ""


def test_the_page_has_a_column_a_bundle(bundle: Path, tmp_path: Path) -> None:
    second = make_bundle(tmp_path / "<b>", other)
    page = comparison_page([subject_of(bundle), subject_of(second), subject_of(bundle)])
    assert "&lt;b&gt;</th>" in page
    assert not re.search(r"https?:|<script|<b>", page)
    for row in re.findall(r'<th scope="row">.*?</tr>', page, re.DOTALL):
        assert row.count("<td") == 3
    (row,) = re.findall(r'<tr class="differs"><th scope="row">top-1 accuracy INT8.*?</tr>', page, re.DOTALL)
    assert "(differs)" in row
    assert re.findall(r">([\d.]+ %)<", row)[1] == "91.5 %"
    assert row.count("(better)") == 2
