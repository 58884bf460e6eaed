"""An engine judged by outputs that were recorded where the other forms of the model ran. Needs no onnx."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgeformer.errors import InputError
from edgeformer.records.terms import Precision
from edgeformer.records.verification import FormReport, VerifyReport
from edgeformer.runtime.session import Array
from edgeformer.verify.figures import Accumulator
from edgeformer.verify.gates import DEFAULT_MAX_DROP, judge

__all__ = ["RECORDED", "judge_recorded"]

RECORDED = "recorded"
"""The name of the form that the outputs were recorded of: the exported model, in FP32."""


def judge_recorded(
    name: str,
    precision: Precision,
    recorded: Mapping[str, Array],
    outputs: Mapping[str, Array],
    *,
    max_drop: float = DEFAULT_MAX_DROP,
    accepted: Collection[str] = (),
    seconds: float | None = None,
) -> VerifyReport:
    """Compare a form's outputs with the recorded ones, and judge it by the gate of its precision.

    Args:
        name: the form's name in the report.
        precision: names the gate.
        recorded: FP32 outputs by name, ``[samples, ...]``.
        outputs: the form's, on the same inputs.
        max_drop: points of the task metric that INT8 may cost.
        accepted: outputs that are compared and reported, and not judged.
        seconds: time that the form's runs took.

    Raises:
        InputError: the names or the shapes differ, or there is no sample.
    """
    if set(recorded) != set(outputs):
        raise InputError(
            "EF811",
            f"{name} gives the outputs {', '.join(map(repr, sorted(outputs))) or '(none)'}, and recorded are "
            f"{', '.join(map(repr, sorted(recorded))) or '(none)'}: build the bundle again",
        )
    figures = {}
    for key, reference in recorded.items():
        accumulator = Accumulator(key)
        accumulator.update(reference, outputs[key])
        figures[key] = accumulator.result()
    judged = {key: dict(vars(found)) for key, found in figures.items() if key not in accepted}
    form = FormReport(
        name=name, status="not judged", against=RECORDED, first=figures, previous=figures, seconds=seconds
    )
    if judged:
        verdict = judge(precision, judged, max_drop=max_drop)
        text = verdict.text
        if accepted:
            text += f"; {', '.join(map(repr, sorted(accepted)))} not judged, as --accept-output asks for"
        status = "passed" if verdict.passed else "missed"
        form = form.model_copy(update={"status": status, "verdict": verdict, "text": text})
    samples = next(iter(figures.values())).samples
    return VerifyReport(
        forms=(FormReport(name=RECORDED, status="reference"), form),
        samples=samples,
        labelled=False,
    )
