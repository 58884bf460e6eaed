"""What the fuser found about every candidate block."""

from __future__ import annotations

from typing import Literal

from edgeformer.errors import GateMissed
from edgeformer.records.base import Record

__all__ = ["BlockReport", "FusionReport", "LepeReport"]

_NOTHING = (
    "nothing in this graph looks like bi-level routing attention (regions ranked by a TopK, fetched by its indices and "
    "attended to by a Softmax), so nothing was fused"
)
# Reasons that an error message lists.
_SHOWN = 8


class BlockReport(Record):
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
    attributes: dict[str, int | float | str] | None
    op: str | None
    proof_error: float | None
    draws: int
    reason: str | None


class LepeReport(Record):
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


class FusionReport(Record):
    """The report on the whole graph.

    Attributes:
        fused: number of blocks that became an op node.
        left: number of blocks that stayed as they were.
        whole_graph_error: greatest difference between the given and the new model's outputs, each as a fraction of the
            output's greatest absolute value; None where nothing was fused.
        blocks: one report for each candidate, in graph order.
        lepe: one report for each op node without LePE; empty where LePE was not to be fused.
    """

    fused: int
    left: int
    whole_graph_error: float | None
    blocks: tuple[BlockReport, ...]
    lepe: tuple[LepeReport, ...]

    def warnings(self, op_nodes: int) -> tuple[str, ...]:
        """What a user has to know: each block that was left, or that there is nothing to fuse; a line each.

        Args:
            op_nodes: number of op nodes in the fused graph, those included that the given graph already had.
        """
        if not self.blocks and not op_nodes:
            return (_NOTHING,)
        left = (block for block in self.blocks if block.status == "left")
        return tuple(f"routing attention at {block.nodes[0]} was not fused: {block.reason}" for block in left)

    def check_plugin(self, op_nodes: int) -> None:
        """Check that all routing attention will run in the plugin.

        Args:
            op_nodes: as for `warnings`.

        Raises:
            GateMissed: a block was left, or there is no op node at all.
        """
        if self.left or not op_nodes:
            reasons = list(dict.fromkeys(self.warnings(op_nodes))) or [_NOTHING]
            more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
            raise GateMissed(
                "EF352",
                f"--require-plugin: {op_nodes} op nodes for the plugin, {self.left} blocks of routing attention left "
                "as they were; nothing was written\n  " + "\n  ".join([*reasons[:_SHOWN], *more]),
            )
