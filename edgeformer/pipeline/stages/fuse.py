"""``fuse``: every routing-attention block that can be proven becomes one op node."""

from __future__ import annotations

import logging

from edgeformer.bundle.details import FuseDetails
from edgeformer.bundle.files import EXPORTED, FUSED
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages._verdicts import miss_hint, verdict_of

__all__ = ["run"]

_log = logging.getLogger(__name__)
_NAME = "fuse"
# Noise images that the whole graphs are compared on; each block was proven on inputs of its own before.
_IMAGES = 2


def run(
    runner: Runner, inputs: ParityInputs, *, accepted: tuple[str, ...], fuse_lepe: bool, require_plugin: bool
) -> None:
    """Fuse the exported graph, and LePE into the op where ``fuse_lepe`` says so; warn of every block that was left.

    Raises:
        GateMissed: the fused graph differs, or a block was left, or there is none, and ``require_plugin`` asks for it.
    """
    runner.run(
        _NAME,
        [FUSED],
        lambda: _fuse(runner, inputs, accepted, fuse_lepe),
        {"model": runner.sha256(EXPORTED), "lepe": fuse_lepe, "accepted": accepted},
    )
    details = runner.records[-1].details
    assert isinstance(details, FuseDetails)  # a stage that is taken from an older bundle has them, too
    op_nodes = details.fusion.fused or _op_nodes(runner)
    if require_plugin:
        details.fusion.check_plugin(op_nodes)
    for warning in details.fusion.warnings(op_nodes):
        _log.warning(warning)


def _op_nodes(runner: Runner) -> int:
    """Op nodes that the given graph already had."""
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.ops.bi_level_routing_attention import is_op

    return sum(is_op(node) for node in load_model(runner.path(FUSED)).graph.node)


def _fuse(runner: Runner, inputs: ParityInputs, accepted: tuple[str, ...], fuse_lepe: bool) -> Judged:
    from edgeformer.graph.fuse import fuse
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.verify import Form, verify_forms

    result = fuse(load_model(runner.path(EXPORTED)), fuse_lepe=fuse_lepe, progress=runner.progress(_NAME))
    save_model(result.model, runner.path(FUSED))
    forms = [Form.from_onnx("exported", runner.path(EXPORTED)), Form.fused(runner.path(EXPORTED), runner.path(FUSED))]
    judged = verify_forms(forms, [inputs.noise(_IMAGES)], accepted=accepted).forms[-1]
    note = f"{len(result.fused)} of {len(result.blocks)} routing-attention blocks fused"
    if result.left:
        note += f"; left: {'; '.join(dict.fromkeys(str(block.reason) for block in result.left))}"
    if fuse_lepe:
        folded = sum(report.status == "fused" for report in result.lepe)
        note += f", LePE into {folded} of {len(result.lepe)} op nodes"
    details = FuseDetails(fusion=result.report, comparison=judged)
    return Judged(verdict_of(judged), judged.text + miss_hint(judged, result.model), note, details)
