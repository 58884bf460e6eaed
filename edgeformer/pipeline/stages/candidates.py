"""``candidates``: further forms of an INT8 model, from which `edgeformer finish --autotune` chooses on the device.

They are what the parity stage compares beside the INT8 form anyway: the model in FP16, and, where the recipe quantizes
the attention, the INT8 form with its attention in float. So their figures cost nothing; each is one more file.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edgeformer.bundle import StageRecord
from edgeformer.bundle.details import CandidatesDetails, ParityDetails
from edgeformer.bundle.figures import snr_db
from edgeformer.bundle.files import FUSED, TYPED, graph_of
from edgeformer.pipeline.plan import Quantization, TypedForm
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages.precision import formed
from edgeformer.records.autotune import CandidateRecord
from edgeformer.records.terms import Precision, Verdict
from edgeformer.records.verification import FLOAT_ATTENTION, FormReport

if TYPE_CHECKING:
    import onnx

__all__ = ["CANDIDATES", "run"]

CANDIDATES = "candidates"
_FP16 = "fp16"


def run(runner: Runner, precision: Precision, fp16: TypedForm, quantization: Quantization, *, use_plugin: bool) -> None:
    """Write the graphs of those that meet their gates, and record all with their figures.

    Args:
        runner: of the bundle, whose forms were compared.
        precision: of the form that the bundle is of.
        fp16: how the FP16 form is written.
        quantization: what the bundle's form was made by.
        use_plugin: engines take the plugin for the op: its body is left out, as from the bundle's own graph.
    """
    parity = next(record for record in runner.records if isinstance(record.details, ParityDetails))
    found = [_judged(precision, precision, "typed", parity), _judged(_FP16, "fp16", _FP16, parity)]
    if quantization.recipe.quantize_attention:
        found.append(_judged(f"{precision}-{FLOAT_ATTENTION}", precision, FLOAT_ATTENTION, parity))
    records = tuple(
        one if one.name == precision or one.verdict == "missed" else one.model_copy(update={"file": graph_of(one.name)})
        for one in found
    )

    def make() -> Judged:
        for one in records:
            if one.file is not None:
                _write(runner, _graph(runner, one, fp16), one.file, use_plugin=use_plugin)
        note = "; ".join(f"{one.name} {one.verdict}" for one in records)
        return Judged(note=f"for --autotune: {note}", details=CandidatesDetails(candidates=records))

    inputs = {
        "fused": runner.sha256(FUSED),
        "typed": runner.sha256(TYPED),
        "parity": parity.key,
        "fp16": asdict(fp16),
        "use_plugin": use_plugin,
    }
    runner.run(CANDIDATES, [one.file for one in records if one.file is not None], make, inputs)


def _judged(name: str, precision: Precision, form: str, parity: StageRecord) -> CandidateRecord:
    """A candidate with what the parity stage found of its form, judged by the gate of its precision."""
    assert isinstance(parity.details, ParityDetails)
    forms = {report.name: report for report in parity.details.report.forms}
    verdict, text = _verdict(forms[form], next(iter(forms.values())), precision, parity.details)
    return CandidateRecord(
        name=name,
        precision=precision,
        verdict=verdict,
        gate=text,
        snr_db=snr_db(forms[form]),
        accuracy=forms[form].accuracy,
    )


def _verdict(
    form: FormReport, reference: FormReport, precision: Precision, parity: ParityDetails
) -> tuple[Verdict, str]:
    from edgeformer.verify.gates import judge

    if form.verdict is not None:  # the parity stage judged it
        return ("passed" if form.verdict.passed else "missed"), form.text
    outputs: dict[str, dict[str, float | None]] = {
        name: dict(vars(found)) for name, found in (form.first or {}).items() if name not in parity.accepted_outputs
    }
    if not outputs:
        return "not judged", form.text
    score, best = form.accuracy, reference.accuracy
    if score is not None and best is not None and not best.at_chance:
        for name in outputs.keys() & set(score.outputs):
            outputs[name]["accuracy_drop"] = best.value - score.value
    verdict = judge(precision, outputs, max_drop=parity.max_drop)
    return ("passed" if verdict.passed else "missed"), verdict.text


def _graph(runner: Runner, one: CandidateRecord, fp16: TypedForm) -> onnx.ModelProto:
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.graph.qdq import with_float_attention
    from edgeformer.graph.types import to_float_type

    if one.name == _FP16:
        return to_float_type(formed(load_model(runner.path(FUSED)), fp16)[0], "float16")
    return with_float_attention(load_model(runner.path(TYPED)))


def _write(runner: Runner, model: onnx.ModelProto, file: str, *, use_plugin: bool) -> None:
    from edgeformer.graph.onnx_files import save_model
    from edgeformer.ops.bi_level_routing_attention import is_op, without_function

    plugin = use_plugin and any(map(is_op, model.graph.node))
    save_model(without_function(model) if plugin else model, runner.path(file))
