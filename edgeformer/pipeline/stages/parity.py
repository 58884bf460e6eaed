"""``parity``: the forms of the model against each other on the same images, and outputs recorded for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeformer.bundle.details import ParityDetails
from edgeformer.bundle.files import EXPORTED, FUSED, PARITY, TYPED
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.plan import Quantization
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages._verdicts import miss_hint, verdict_of
from edgeformer.pipeline.stages._watching import Recorder, RoutingWatch
from edgeformer.records.network import BlockFigures
from edgeformer.records.terms import Precision
from edgeformer.records.verification import FLOAT_ATTENTION

if TYPE_CHECKING:
    from edgeformer.verify import Form

__all__ = ["run"]

_NAME = "parity"
# Images whose activations are held against the range of FP16.
_OVERFLOW_IMAGES = 2
# Images that the network is compared on part by part.
_BLOCK_IMAGES = 4


def run(
    runner: Runner,
    inputs: ParityInputs,
    *,
    precision: Precision,
    quantization: Quantization | None,
    max_drop: float,
    accepted: tuple[str, ...],
) -> None:
    """Judge the fused and the typed graph, and record inputs with the FP32 outputs."""

    def compare() -> Judged:
        recorder, routing = Recorder(), RoutingWatch()
        forms = _forms(runner, precision, quantization, recorder, routing)
        judged = _compare(runner, inputs, forms, routing, max_drop, accepted)
        recorder.save(runner.path(PARITY), inputs.images)
        return judged

    runner.run(
        _NAME,
        [PARITY],
        compare,
        {
            "exported": runner.sha256(EXPORTED),
            "fused": runner.sha256(FUSED),
            "typed": runner.sha256(TYPED),
            "inputs": inputs.key(),
            "max_drop": max_drop,
            "accepted": accepted,
        },
    )


def _forms(
    runner: Runner, precision: Precision, quantization: Quantization | None, recorder: Recorder, routing: RoutingWatch
) -> list[Form]:
    """The forms to compare; those that are no file of the bundle are made when their turn comes."""
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.graph.qdq import with_float_attention
    from edgeformer.graph.types import to_float_type
    from edgeformer.verify import Form

    forms = [
        routing.over(recorder.over(Form.from_onnx("exported", runner.path(EXPORTED)))),
        Form.fused(runner.path(EXPORTED), runner.path(FUSED)),
    ]
    if quantization is not None:
        # Not shipped and not judged: what FP16 alone would cost, so that the share of what is quantized can be told.
        forms.append(Form.from_onnx("fp16", lambda: to_float_type(load_model(runner.path(FUSED)), "float16")))
        if quantization.recipe.quantize_attention:
            # Likewise: what INT8 costs without that of the attention.
            forms.append(Form.from_onnx(FLOAT_ATTENTION, lambda: with_float_attention(load_model(runner.path(TYPED)))))
    return [*forms, routing.over(Form.from_onnx("typed", runner.path(TYPED), precision))]


def _compare(
    runner: Runner,
    inputs: ParityInputs,
    forms: list[Form],
    routing: RoutingWatch,
    max_drop: float,
    accepted: tuple[str, ...],
) -> Judged:
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.verify import verify_forms

    progress = runner.progress(_NAME)
    report = verify_forms(
        forms,
        inputs.batches,
        max_drop=max_drop,
        accepted=accepted,
        progress=lambda form, done, total: progress(f"images, {form}", done, total or inputs.count),
    )
    fused = load_model(runner.path(FUSED))
    missed = [f"{form.name}: {form.text}{miss_hint(form, fused)}" for form in report.forms if form.status == "missed"]
    found = _overflow(runner, inputs)
    if found is not None:
        missed.insert(0, found)
    described = inputs.describe()
    details = ParityDetails(
        inputs=described,
        max_drop=max_drop,
        accepted_outputs=accepted,
        report=report,
        blocks=_blocks(runner, inputs),
        routing=routing.picture("exported", "typed", report.samples),
    )
    gate = "; ".join(missed) or report.forms[-1].text
    verdict = "missed" if missed else verdict_of(report.forms[-1])
    return Judged(verdict, gate, f"judged on {described}", details)


def _blocks(runner: Runner, inputs: ParityInputs) -> tuple[BlockFigures, ...]:
    """The network part by part, the typed graph against the fused one."""
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.verify.block_figures import block_figures

    return block_figures(load_model(runner.path(FUSED)), load_model(runner.path(TYPED)), inputs.images(_BLOCK_IMAGES))


def _overflow(runner: Runner, inputs: ParityInputs) -> str | None:
    """The tensor of the typed graph that leaves the range of FP16, and the way out."""
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.verify.overflow import overflow

    found = overflow(load_model(runner.path(FUSED)), load_model(runner.path(TYPED)), inputs.images(_OVERFLOW_IMAGES))
    return found and f"typed: overflow: {found}. Build with --precision bf16 or fp32, or rescale the weights before it"
