"""What ``edgeformer verify`` prints of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.cli import _common, verify
from edgeformer.verify import Form, RoutingOutput, VerifyReport, verify_forms
from tests.present import present
from tests.verify.conftest import FunctionSession, Labelled, images


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_common.console, "width", 160)


def printed(report: VerifyReport, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The lines with something on them, in words that two spaces part."""
    verify._print(report)
    lines = capsys.readouterr().out.splitlines()
    return [[word.strip() for word in line.split("  ") if word.strip()] for line in lines if line.strip()]


def form(name: str, gate: str | None = None, noise: float = 0.0, changed: int = 0, classes: bool = True) -> Form:
    def run(x: np.ndarray) -> dict[str, np.ndarray]:
        logits = x.copy()
        logits[0, 0] += noise
        found = np.arange(len(x) * 5).reshape(len(x), 5)
        found[0, :changed] = -1
        given = {"logits": logits, "classes": found, "routing": np.zeros((len(x), 4, 1), int)}
        return given if classes else {name: given[name] for name in ("logits", "routing")}

    outputs = ("logits", "classes", "routing") if classes else ("logits", "routing")
    return Form.from_session(
        name, FunctionSession(run, outputs=outputs), gate, routing=(RoutingOutput("routing", None, 0),)
    )


def test_one_output_has_its_figures_in_the_forms_row(capsys: pytest.CaptureFixture[str]) -> None:
    x = images(40)
    forms = [form("exported", classes=False), form("typed", "int8", noise=0.25, classes=False)]
    forms.append(Form.not_run("engine", "engine not run: no GPU", "int8"))
    report = verify_forms(forms, [Labelled(x, x.argmax(1))])
    snr = report.forms[1].first["logits"].snr_db if report.forms[1].first else None
    lines = printed(report, capsys)
    assert lines[0] == ["form", "verdict", "SNR", "max |diff|", "top-1", "routing", "accuracy"]
    agreement = present(present(report.forms[1].first)["logits"].top1_agreement)
    assert lines[2] == ["exported", "reference", "100 %"]
    accuracy = present(report.forms[1].accuracy).value
    assert lines[3] == [
        *("typed", report.forms[1].status, f"{snr:.1f} dB", "2.5e-01"),
        *(f"{round(100 * agreement, 2):g} %", "100 %", f"{round(accuracy, 2):g} %"),
    ]
    assert lines[4] == ["engine", "not run"]
    assert lines[5][0].startswith("40 images; figures against exported")
    assert lines[-1] == ["engine not run: no GPU"]


def test_several_outputs_have_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    report = verify_forms([form("exported"), form("typed", "fp16", changed=2)], [images(40)])
    lines = printed(report, capsys)
    assert lines[0] == ["form", "verdict", "SNR", "max |diff|", "top-1", "equal", "routing", "accuracy"]
    assert lines[2:6] == [
        ["exported", "reference"],
        ["typed", "missed", "100 %"],
        ["logits", "inf dB", "0.0e+00", "100 %"],
        ["classes", "99 %"],
    ]
    text: Any = " ".join(" ".join(line) for line in lines[7:])
    assert "typed: cosine 1 of 'logits' meets >= 0.9999" in text
    assert "integer agreement 0.99 of 'classes' MISSES >= 0.995" in text


def test_the_signature_and_what_is_not_in_the_manifest_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    report = verify_forms([form("exported")], [images(40)])
    verify._print(report, ("libother.so",), Path("signing.pub.pem"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "the signature holds for signing.pub.pem",
        "not in the manifest, so not checked and never loaded: libother.so",
    ]
    assert verify._document(report, ("libother.so",))["unlisted"] == ["libother.so"]
