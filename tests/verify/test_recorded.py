from __future__ import annotations

import numpy as np
import pytest

from edgeformer.verify.recorded import judge_recorded
from tests.raising import raises

RECORDED = {"logits": np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)}


def test_outputs_that_agree_pass() -> None:
    near = {"logits": RECORDED["logits"] * np.float32(1.001)}
    report = judge_recorded("engine", "fp16", RECORDED, near, seconds=2.0)
    reference, form = report.forms
    assert (reference.name, reference.status) == ("recorded", "reference")
    assert (form.name, form.status, form.against, form.seconds) == ("engine", "passed", "recorded", 2.0)
    assert report.samples == 4
    assert form.first is not None
    assert form.first["logits"].max_abs_relative == pytest.approx(1e-3, rel=0.01)
    assert form.first["logits"].top1_agreement == 1.0


def test_outputs_that_differ_miss_the_gate_of_the_precision() -> None:
    noise = np.random.default_rng(1).standard_normal((4, 10)).astype(np.float32)
    off = {"logits": RECORDED["logits"] + np.float32(0.05) * noise}
    assert judge_recorded("engine", "fp16", RECORDED, off).forms[1].status == "missed"
    # A share of INT8's noise is allowed that FP16 does not have; here the classes decide.
    report = judge_recorded("engine", "int8", RECORDED, off, max_drop=100.0)
    assert report.forms[1].status == "passed"


def test_an_accepted_output_is_reported_and_not_judged() -> None:
    recorded = {**RECORDED, "boxes": np.ones((4, 3), np.float32)}
    outputs = {**RECORDED, "boxes": -np.ones((4, 3), np.float32)}
    form = judge_recorded("engine", "fp16", recorded, outputs, accepted=("boxes",)).forms[1]
    assert form.status == "passed"
    assert form.text.endswith("'boxes' not judged, as --accept-output asks for")
    assert form.first is not None
    assert form.first["boxes"].cosine == -1.0
    assert judge_recorded("engine", "fp16", recorded, outputs).forms[1].status == "missed"
    alone = judge_recorded("engine", "fp16", RECORDED, RECORDED, accepted=("logits",)).forms[1]
    assert alone.status == "not judged"


def test_other_outputs_are_refused() -> None:
    with raises("EF811", "'logits'", "'boxes'"):
        judge_recorded("engine", "fp16", RECORDED, {"boxes": RECORDED["logits"]})
