"""What the fuser tells about every candidate block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import onnx

__all__ = ["BlockReport", "FuseResult", "LepeReport"]


@dataclass(frozen=True)
class BlockReport:
    """One candidate for bi-level routing attention and what became of it.

    Attributes:
        status: ``"fused"``, or ``"left"`` where the block stays as it was.
        nodes: names of the candidate's nodes, its TopK first; a node without a name is called by its first output.
        attributes: the op node's attributes; None for a block that was left.
        op: name of the op node that replaced the block; None for a block that was left.
        proof_error: greatest difference over all draws between the block and the op, as a fraction of the block's
            greatest absolute output; None where no draw was run to the end.
        draws: random inputs on which both were run.
        reason: why the block was left; None for a fused one.
    """

    status: Literal["fused", "left"]
    nodes: tuple[str, ...]
    attributes: dict[str, Any] | None
    op: str | None
    proof_error: float | None
    draws: int
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-serialisable values."""
        return {**vars(self), "nodes": list(self.nodes)}


@dataclass(frozen=True)
class LepeReport:
    """What became of the LePE beside one op node.

    Attributes:
        op: name of the op node.
        status: ``"fused"`` into it, or ``"left"`` as it was.
        proof_error: greatest difference over all draws between the old nodes and the op with LePE, as a fraction of
            their greatest absolute output; None where no draw was run to the end.
        draws: random inputs on which both were run.
        reason: why it was left; None for a fused one.
    """

    op: str
    status: Literal["fused", "left"]
    proof_error: float | None
    draws: int
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-serialisable values."""
        return dict(vars(self))


@dataclass(frozen=True)
class FuseResult:
    """The fused model and one report per candidate, in graph order.

    Attributes:
        model: the new model; a copy of the given one where nothing was fused.
        blocks: one report per candidate. Op nodes that the given model already had are no candidates.
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

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, as JSON-serialisable values."""
        return {
            "fused": len(self.fused),
            "left": len(self.left),
            "whole_graph_error": self.whole_graph_error,
            "blocks": [block.to_dict() for block in self.blocks],
            "lepe": [report.to_dict() for report in self.lepe],
        }
