"""From the report on a form to the verdict of a stage, and what a person can do about a miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeformer.records.terms import Verdict
from edgeformer.records.verification import FormReport

if TYPE_CHECKING:
    import onnx

__all__ = ["miss_hint", "verdict_of"]


def verdict_of(form: FormReport) -> Verdict:
    """The stage's verdict: a form without judged outputs passes nothing."""
    return form.status if form.status in ("missed", "not judged") else "passed"


def miss_hint(form: FormReport, model: onnx.ModelProto) -> str:
    """Why the output that missed jumps, and the ways out, where it stands behind a ranking; else nothing.

    Args:
        form: the report on the form.
        model: the fused graph, in which routing is no ranking any more.
    """
    from edgeformer.graph.decoding import decoded_outputs

    output = None if form.status != "missed" or form.verdict is None else form.verdict.output
    decoded = {} if output is None else decoded_outputs(model)
    picks = decoded.pop(output or "", None)
    if picks is None:
        return ""
    others = f"; where they miss it too, as well {', '.join(decoded)}" if decoded else ""
    return (
        f". The output {output!r} stands behind {picks}, which picks: where two candidates lie closer together than "
        f"rounding, the output jumps. Export the model without its decoding, so that what it picks from is judged, or "
        f"give --accept-output {output} to have it reported and not judged{others}"
    )
