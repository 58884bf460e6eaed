"""Outputs that are reported and not judged."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer.verify import Form, verify_forms
from tests.present import present
from tests.raising import raises
from tests.verify.conftest import FunctionSession, images

WEIGHT = np.random.default_rng(20).standard_normal((3, 4))


def first_and_second(second: float) -> FunctionSession:
    """Of which the second one is ``second`` times the input."""
    return FunctionSession(
        lambda x: {"first": x @ WEIGHT.astype(np.float32), "second": x * np.float32(second)},
        outputs=("first", "second"),
    )


def test_an_accepted_output_is_reported_and_not_judged() -> None:
    forms = [
        Form.from_session("exported", first_and_second(1.0)),
        Form.from_session("typed", first_and_second(-1.0), "fp16"),
    ]
    (_, missed) = verify_forms(forms, [images(5)]).forms
    assert (missed.status, present(missed.verdict).output) == ("missed", "second")

    (_, form) = verify_forms(forms, [images(5)], accepted=["second"]).forms
    assert form.status == "passed"
    assert present(form.first)["second"].cosine == pytest.approx(-1.0)
    assert "'second' not judged, as --accept-output asks for" in form.text

    (_, form) = verify_forms(forms, [images(5)], accepted=["first", "second"]).forms
    assert (form.status, form.verdict) == ("not judged", None)
    with raises("EF347", "'third'"):
        verify_forms(forms, [images(5)], accepted=["third"])
