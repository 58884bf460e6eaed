"""``fuse``: every routing-attention block that can be proven becomes one op node."""

from __future__ import annotations

from edgeformer.bundle.details import FuseDetails
from edgeformer.bundle.files import EXPORTED, FUSED
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.runner import Judged, Runner

__all__ = ["run"]

_NAME = "fuse"
# Noise images that the whole graphs are compared on; each block was proven on inputs of its own before.
_IMAGES = 2


def run(runner: Runner, inputs: ParityInputs, *, fuse_lepe: bool) -> None:
    """Fuse the exported graph, and LePE into the op where ``fuse_lepe`` says so."""
    runner.run(
        _NAME, [FUSED], lambda: _fuse(runner, inputs, fuse_lepe), {"model": runner.sha256(EXPORTED), "lepe": fuse_lepe}
    )


def _fuse(runner: Runner, inputs: ParityInputs, fuse_lepe: bool) -> Judged:
    from edgeformer.graph.fuse import fuse
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.verify import Form, verify_forms

    result = fuse(load_model(runner.path(EXPORTED)), fuse_lepe=fuse_lepe, progress=runner.progress(_NAME))
    save_model(result.model, runner.path(FUSED))
    forms = [Form.from_onnx("exported", runner.path(EXPORTED)), Form.from_onnx("fused", runner.path(FUSED), "fuse")]
    judged = verify_forms(forms, [inputs.noise(_IMAGES)]).forms[-1]
    note = f"{len(result.fused)} of {len(result.blocks)} routing-attention blocks fused"
    if fuse_lepe:
        folded = sum(report.status == "fused" for report in result.lepe)
        note += f", LePE into {folded} of {len(result.lepe)} op nodes"
    details = FuseDetails(fusion=result.report, comparison=judged)
    return Judged("missed" if judged.status == "missed" else "passed", judged.text, note, details)
