"""Candidates for bi-level routing attention, found by their anchors: TopK -> gather -> Softmax -> product.

Nothing here is more than a guess: only the proof decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.protos import is_standard

__all__ = ["Anchors", "find_anchors"]

_GATHER_OPS = ("Gather", "GatherElements", "GatherND")
# Attention (opset 23) is all of it in one op: found so that the report can name it.
_ATTENTION_OPS = ("Softmax", "Attention")
_PRODUCT_OPS = ("MatMul", "Einsum")
# What may stand between the softmax and the product with the values.
_PASS_OPS = ("Cast", "Dropout", "Identity")


@dataclass(frozen=True)
class Anchors:
    """The fixed points of one candidate.

    Attributes:
        topk: the TopK node that picks regions.
        softmax: the Softmax over the logits of the picked keys, or an Attention op.
        tail: the product of the attention weights and the values, and what follows of it while its elements are only
            moved: tensor names, from the product downwards.
    """

    topk: int
    softmax: int
    tail: tuple[str, ...]


def find_anchors(flow: Dataflow) -> list[Anchors]:
    """All candidates, in graph order. A TopK whose indices gather nothing that a Softmax attends to is not one."""
    found = []
    for index, node in enumerate(flow.nodes):
        if is_standard(node, "TopK") and len(node.output) == 2 and node.output[1] and node.output[0] not in flow.static:
            softmax = _softmax_after(flow, node.output[1])
            product = None if softmax is None else _product_after(flow, softmax)
            if softmax is not None and product is not None:
                found.append(Anchors(index, softmax, _tail(flow, product)))
    return found


def _softmax_after(flow: Dataflow, indices: str) -> int | None:
    """The first Softmax over what a gather fetched by ``indices`` (or by what is computed from them)."""
    derived, fetched = {indices}, set[str]()
    for index in range(flow.producer[indices] + 1, len(flow.nodes)):
        node = flow.nodes[index]
        inputs = flow.data_inputs(index)
        if not fetched.isdisjoint(inputs):
            if is_standard(node, *_ATTENTION_OPS):
                return index
            fetched.update(node.output)
        elif not derived.isdisjoint(inputs):
            by_index = is_standard(node, *_GATHER_OPS) and node.input[1] in derived
            (fetched if by_index else derived).update(node.output)
    return None


def _product_after(flow: Dataflow, softmax: int) -> str | None:
    """The product of the attention weights with the values; None where they are not used so."""
    weights = flow.nodes[softmax].output[0]
    if is_standard(flow.nodes[softmax], "Attention"):
        return str(weights)
    pending = [str(weights)]
    while pending:
        name = pending.pop(0)
        for index in flow.readers(name):
            node = flow.nodes[index]
            if is_standard(node, *_PRODUCT_OPS):
                return str(node.output[0])
            if is_standard(node, *_PASS_OPS) or flow.view_source(index) is not None:
                pending.append(node.output[0])
    return None


def _tail(flow: Dataflow, product: str) -> tuple[str, ...]:
    """``product`` and the views of it that follow, as long as each has one reader and is not an output of the graph."""
    tail = [product]
    while tail[-1] not in flow.outputs:
        readers = flow.readers(tail[-1])
        if len(readers) != 1 or flow.view_source(readers[0]) is None:
            break
        tail.append(flow.nodes[readers[0]].output[0])
    return tuple(tail)
