"""What a page says of a manifest."""

from __future__ import annotations

import json

import pytest

from edgeformer.bundle import Manifest
from edgeformer.bundle.figures import forms_of
from edgeformer.report.content import block_rows, key_figures, routing_rows, verdict_of
from tests.report.conftest import EXAMPLE, Document, Edit, stage


def manifest(edit: Edit) -> Manifest:
    document: Document = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    edit(document)
    return Manifest.model_validate(document)


def ran(document: Document) -> None:
    stage(document, "engine-parity").update(verdict="passed", gate="fine", note=None)


def without_engine(document: Document) -> None:
    del document["files"]["model.engine"]


@pytest.mark.parametrize(
    ("edit", "kind", "headline"),
    [
        (lambda document: None, "open", "has not run on a GPU yet"),
        (ran, "passed", "Every gate passed"),
        (without_engine, "open", "still to be built on the target"),
        (lambda document: stage(document, "fuse").update(verdict="missed"), "missed", "Gate missed: fuse"),
    ],
)
def test_verdicts(edit: Edit, kind: str, headline: str) -> None:
    verdict = verdict_of(manifest(edit))
    assert verdict.kind == kind
    assert headline in verdict.headline


def test_what_makes_a_verdict_weak_is_said() -> None:
    assert verdict_of(manifest(ran)).reasons == ()

    def unlabelled(document: Document) -> None:
        ran(document)
        document["accuracy"] = {}

    def guessing(document: Document) -> None:
        ran(document)
        document["accuracy"]["fp32"].update(value=10.0, at_chance=True)

    assert "no labelled images" in verdict_of(manifest(unlabelled)).reasons[0]
    assert "FP32 model is no better than chance (10 %)" in verdict_of(manifest(guessing)).reasons[0]


def test_key_figures_have_what_bundles_are_compared_by() -> None:
    figures = {figure.name: figure for figure in key_figures(manifest(ran))}
    assert list(figures) == [
        *(f"top-1 accuracy {precision}" for precision in ("FP32", "FP16", "INT8")),
        *("SNR of the outputs", "routing agreement", "engine", "activation memory", "plugin layers"),
    ]
    assert figures["engine"].better == "lower"
    assert figures["plugin layers"].text == "4"


def test_blocks_in_words() -> None:
    def edit(document: Document) -> None:
        stage(document, "parity")["details"]["blocks"] = [
            {"name": "stem", "int8_layers": 0, "float_layers": 2, "snr_db": None},
            {
                "name": "stages.0.0",
                "int8_layers": 5,
                "float_layers": 1,
                "snr_db": 42.04,
                "op": "bra",
                "attention": "fp16",
                "regions": 7,
                "topk": 4,
            },
        ]

    stem, block = block_rows(manifest(edit))
    assert (stem.precision, stem.attention, stem.snr) == ("2 FP16", "", "")
    assert (block.precision, block.attention, block.snr) == ("5 INT8, 1 FP16", "plugin FP16, top 4 of 49", "42.0 dB")

    def without_plugin(document: Document) -> None:
        edit(document)
        stage(document, "engine")["details"]["report"]["plugin"]["in_network"] = 0

    assert block_rows(manifest(without_plugin))[1].attention.startswith("ONNX body FP16")


def test_routing_has_a_row_a_block() -> None:
    forms = forms_of(manifest(ran))
    assert routing_rows(None) == []
    assert len(routing_rows(forms["typed"])) == 4
