"""What the fuser returns."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.records.fusion import BlockReport, FusionReport, LepeReport

__all__ = ["FuseResult"]


@dataclass(frozen=True)
class FuseResult:
    """The fused model and one report per candidate, in graph order.

    Attributes:
        model: the new model; a copy of the given one where nothing was fused.
        blocks: one report per candidate. Op nodes that the given model already had are not candidates.
        whole_graph_error: greatest difference between the given and the new model's outputs, each as a fraction of the
            output's greatest absolute value; None where nothing was fused.
        lepe: one report per op node without LePE, those included that the given model already had; empty where LePE
            was not to be fused.
    """

    model: onnx.ModelProto
    blocks: tuple[BlockReport, ...]
    whole_graph_error: float | None
    lepe: tuple[LepeReport, ...] = ()

    @property
    def fused(self) -> tuple[BlockReport, ...]:
        """The blocks that were replaced by an op node."""
        return tuple(block for block in self.blocks if block.status == "fused")

    @property
    def left(self) -> tuple[BlockReport, ...]:
        """The blocks that stayed as they were."""
        return tuple(block for block in self.blocks if block.status == "left")

    @property
    def op_nodes(self) -> int:
        """Op nodes in the new model, those included that the given one already had."""
        return sum(is_op(node) for node in self.model.graph.node)

    @property
    def report(self) -> FusionReport:
        """Everything but the model."""
        return FusionReport(
            fused=len(self.fused),
            left=len(self.left),
            whole_graph_error=self.whole_graph_error,
            blocks=self.blocks,
            lepe=self.lepe,
        )
