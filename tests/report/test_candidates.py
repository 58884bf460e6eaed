"""Candidates on a page: what the build found of each, and after `finish --autotune` which is kept, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeformer.bundle import read_manifest
from edgeformer.bundle.figures import engine_line
from edgeformer.report.candidates import candidates_content
from edgeformer.report.page import bundle_page
from tests.present import present
from tests.report.conftest import Document, edited, make_bundle, stage, subject_of
from tests.report.test_page import words


def listed(name: str, snr: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "precision": name[:4], "verdict": "passed", "snr_db": snr, **more}


def with_candidates(document: Document) -> None:
    candidates = [listed("int8", 41.5), listed("fp16", 57.75), listed("int8-float-attention", 43.0, verdict="missed")]
    details = {"stage": "candidates", "candidates": candidates}
    document["stages"].insert(4, {"name": "candidates", "key": "", "seconds": 1.0, "details": details})


def with_choice(document: Document) -> None:
    with_candidates(document)
    tuned = [
        {
            "name": "fp16",
            "precision": "fp16",
            "outcome": "kept",
            "gate": "cosine 1 meets >= 0.9999",
            "snr_db": 56.25,
            "engine_bytes": 7_654_321,
            "p50_ms": 1.2345,
        },
        {"name": "int8", "precision": "int8", "outcome": "no engine", "reason": "TensorRT has no kernel"},
    ]
    details = {"stage": "autotune", "candidates": tuned, "kept": "fp16", "text": "ship FP16: 1.40 times as fast"}
    document["stages"].append({"name": "autotune", "key": "", "seconds": 1.0, "details": details})
    document["engine_precision"] = "fp16"
    stage(document, "engine")["details"]["candidate"] = "fp16"


def test_without_candidates_there_is_no_section(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    assert candidates_content(read_manifest(bundle)) is None
    page = bundle_page(subject_of(bundle))
    assert 'id="candidates"' not in page
    assert "its engine" not in page


def test_before_the_choice_the_builds_figures_are_shown(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", with_candidates)
    found = present(candidates_content(read_manifest(bundle)))
    assert (found.choice, found.remarks) == ("", ())
    assert [(row.name, row.verdict, row.snr, row.outcome, row.kept) for row in found.rows] == [
        ("int8", "passed", "41.5 dB", "", False),
        ("fp16", "passed", "57.8 dB", "", False),
        ("int8-float-attention", "missed", "43.0 dB", "", False),
    ]
    assert "edgeformer finish --autotune builds an engine of each on the device" in words(
        bundle_page(subject_of(bundle))
    )


def test_the_choice_is_the_manifests(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", with_choice)
    found = present(candidates_content(read_manifest(bundle)))
    assert found.choice == "ship FP16: 1.40 times as fast"
    assert found.remarks == ("int8: no engine: TensorRT has no kernel",)
    int8, fp16, other = found.rows
    assert (int8.verdict, int8.snr, int8.engine, int8.outcome) == ("not run", "41.5 dB", "", "no engine")
    assert (fp16.verdict, fp16.snr, fp16.engine, fp16.p50, fp16.kept) == (
        "passed",
        "56.2 dB",
        "7.65 MB",
        "1.234 ms",
        True,
    )
    assert (other.verdict, other.outcome) == ("missed", "")
    page = words(bundle_page(subject_of(bundle)))
    for text in (found.choice, "7.65 MB", "1.234 ms", "its engine FP16", found.remarks[0]):
        assert text in page
    assert "of the candidate fp16" in present(engine_line(read_manifest(bundle)))

    def faster(document: Document) -> None:
        stage(document, "autotune")["details"]["candidates"][0]["p50_ms"] = 0.9

    edited(bundle, faster)
    assert "0.900 ms" in words(bundle_page(subject_of(bundle)))
