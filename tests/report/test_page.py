"""The page on a bundle: its figures are the manifest's and the command line's, and it needs nothing besides itself."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from rich.console import Console

from edgeformer.bundle import Manifest, read_manifest
from edgeformer.bundle.details import ParityDetails, QuantizeDetails
from edgeformer.bundle.figures import decibels, percent, score_text, snr_db
from edgeformer.cli._summary import print_summary
from edgeformer.report.page import bundle_page, cells
from tests.present import present
from tests.report.conftest import Document, edited, make_bundle, stage, subject_of

MOST_BYTES = 1_000_000


def words(page: str) -> str:
    """The text of a page, in one line."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def shown(bundle: Path) -> str:
    return bundle_page(subject_of(bundle))


def test_verdict_and_next_step_come_first(bundle: Path) -> None:
    text = words(shown(bundle))
    places = [text.index(part) for part in ("Every gate here passed", "edgeformer verify b --trust-bundle", "Stages")]
    assert places == sorted(places)
    order = ["Stages", "The network, block by block", "Accuracy", "Routing", "Calibration", "Versions and hashes"]
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", shown(bundle))
    assert [heading for heading in headings if heading in order] == order


def test_figures_are_the_manifests_and_the_command_lines(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, text = read_manifest(bundle), words(shown(bundle))
    print_summary(Console(width=400), bundle, manifest)
    printed = " ".join(capsys.readouterr().out.split())
    typed = present(manifest.details(ParityDetails)).report.forms[-1]
    for figure in (
        *(score_text(score) for score in manifest.accuracy.values()),
        decibels(snr_db(typed)),
        *(record.gate for record in manifest.stages if record.gate),
    ):
        assert figure in text
        assert figure in printed
    assert percent(100 * present(typed.routing_first).agreement) in text
    for stage_record in manifest.stages:
        assert f"{stage_record.seconds:.1f} s" in text
        assert f"{stage_record.seconds:.1f} s" in printed
    for name, record in manifest.files.items():
        assert f"{name} {record.size / 1e6:.2f} MB {record.sha256}" in text


def test_the_page_follows_the_manifest(bundle: Path) -> None:
    def edit(document: Document) -> None:
        document["accuracy"]["int8"]["value"] = 12.34
        stage(document, "parity")["gate"] = "a gate of this test"
        parts = stage(document, "parity")["details"]["blocks"]
        parts[0]["snr_db"] = 7.25
        parts[1]["int8_layers"] = 777

    before = words(shown(bundle))
    edited(bundle, edit)
    after = words(shown(bundle))
    for figure in ("12.34 %", "a gate of this test", "7.2 dB", "777 INT8"):
        assert figure not in before
        assert figure in after


def test_it_needs_nothing_besides_itself(bundle: Path) -> None:
    page = shown(bundle)
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|\son\w+=", page)
    assert set(re.findall(r"(?:src|href)=\"([^\"#][^\"]*)", page)) == set()
    assert {address[:23] for address in re.findall(r"url\((?!#)([^)]*)", page)} == {"data:image/jpeg;base64,"}
    assert "default-src 'none'" in page
    assert len(page.encode()) < MOST_BYTES
    assert page == shown(bundle)


def test_names_are_text(bundle: Path) -> None:
    hostile = "<script>alert('x')</script>\x1b[31m\u202e{{ 7 * 7 }}"

    def edit(document: Document) -> None:
        document["model"]["name"] = hostile
        document["target"]["description"] = hostile
        document["application"]["labels"][0] = hostile
        for name in ("export", "parity"):
            stage(document, name)["note"] = hostile
        stage(document, "parity")["details"]["inputs"] = hostile
        stage(document, "parity")["details"]["blocks"][0]["name"] = hostile
        stage(document, "quantize")["details"]["activations"][0]["tensor"] = hostile
        document["libraries"][hostile] = hostile

    edited(bundle, edit)
    page = shown(bundle)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert words(page).count("<script>alert('x')</script>\\x1b[31m\\u202e{{ 7 * 7 }}") >= 8


def test_the_largest_network_fits(tmp_path: Path) -> None:
    def edit(document: Document) -> None:
        parity, quantize = (stage(document, name)["details"] for name in ("parity", "quantize"))
        parity["blocks"] = [{**parity["blocks"][0], "name": f"stages.2.{index}"} for index in range(80)]
        first = quantize["activations"][0]
        quantize["activations"] = [{**first, "tensor": f"layer_norm_{index}"} for index in range(400)]

    page = shown(make_bundle(tmp_path / "large", edit))
    assert len(page.encode()) < MOST_BYTES
    text = words(page)
    assert "stages.2.79" in text
    assert "layer_norm_399" in text
    assert "The 48 that are clipped most are drawn" in text


def test_a_build_for_a_device_says_what_is_left(tmp_path: Path) -> None:
    def edit(document: Document) -> None:
        del document["files"]["model.engine"]
        details = stage(document, "engine")["details"]
        details["report"], details["left_to_do"] = None, ["build the engine there"]

    text = words(shown(make_bundle(tmp_path / "b", edit)))
    assert "the engine is still to be built on the target" in text
    assert "Left to do build the engine there" in text
    assert "scp -r b rtx-40:" in text
    assert "Built in" not in text


def test_what_the_manifest_lacks_is_left_out(tmp_path: Path) -> None:
    """As a build in floating point without images has it, or an older version."""

    def edit(document: Document) -> None:
        document["accuracy"] = {}
        document["precision"] = "fp16"
        document["stages"] = [one for one in document["stages"] if one["name"] != "quantize"]
        details = stage(document, "parity")["details"]
        del details["blocks"], details["routing"]

    page = shown(make_bundle(tmp_path / "b", edit))
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert headings == ["Stages", "Accuracy", "Routing", "Engine", "Versions and hashes"]
    assert "Not measured: no labelled images were given" in words(page)
    assert "Where a region looks" not in page


def test_a_missed_gate_is_no_pass(tmp_path: Path) -> None:
    def edit(document: Document) -> None:
        stage(document, "engine-parity").update(verdict="missed", gate="accuracy drop in points 3 MISSES <= 1")

    page = shown(make_bundle(tmp_path / "b", edit))
    assert '<section class="verdict missed"' in page
    assert "Gate missed: engine-parity" in words(page)
    assert "✗" in page


def test_regions_are_drawn_where_they_are(bundle: Path) -> None:
    assert cells([0, 8, 48], 7) == "M0 0h1v1h-1zM1 1h1v1h-1zM6 6h1v1h-1z"

    def edit(document: Document) -> None:
        query = {"region": 24, "reference": [0, 8], "typed": [0, 9]}
        block = {"stage": 1, "block": 0, "side": 7, "changed": 1, "queries": [query]}
        stage(document, "parity")["details"]["routing"] = {"sample": 0, "blocks": [block]}

    edited(bundle, edit)
    page = shown(bundle)
    veils = re.findall(r'class="veil" d="([^"]*)"', page)
    assert veils == [cells([r for r in range(49) if r not in seen], 7) for seen in ({0, 8}, {0, 9})]
    assert re.findall(r'class="other" d="([^"]*)"', page) == [
        "M1.07 1.07h0.86v0.86h-0.86z",
        "M2.07 1.07h0.86v0.86h-0.86z",
    ]
    assert 'aria-label="region 24 looks at 0, 9"' in page
    assert "1 of 49 regions look elsewhere" in words(page)


def test_the_example_has_all_that_a_page_can_show(example: Manifest) -> None:
    parity, quantize = present(example.details(ParityDetails)), present(example.details(QuantizeDetails))
    assert [block.name for block in parity.blocks if block.op] == [
        "stages.0.0",
        "stages.1.0",
        "stages.2.0",
        "stages.2.1",
    ]
    assert all(block.snr_db is not None for block in parity.blocks)
    assert present(parity.routing).blocks
    assert all(one.histogram is not None for one in quantize.activations)
