"""Candidates for bi-level routing attention, found by their anchors: product -> TopK -> gather -> Softmax -> product.

Nothing here is more than a guess: only the proof decides. What looks like the attention and cannot be it, such as a
quantized one, is found as well, so that the report can say why it was left.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.protos import is_standard
from edgeformer.ops.bi_level_routing_attention import DOMAIN

__all__ = ["Anchors", "find_anchors", "operands", "weighted_values"]

_GATHER_OPS = ("Gather", "GatherElements", "GatherND")
_PRODUCT_OPS = ("MatMul", "Einsum", "QLinearMatMul", "MatMulInteger")
# A product with what is computed from indices picks by one-hot rows; Mul is such a product before its sum.
_PICKING_OPS = (*_PRODUCT_OPS, "Mul")
# What may stand between the softmax and the product with the values.
_PASS_OPS = ("Cast", "Dropout", "Identity", "QuantizeLinear", "DequantizeLinear")
_LINEAR_OPS = ("Conv", "Gemm")


@dataclass(frozen=True)
class Anchors:
    """The fixed points of one candidate.

    Attributes:
        topk: the TopK node that picks regions.
        softmax: the Softmax over the logits of the picked keys, or one op that does the attention with it.
        tail: the product of the attention weights and the values, and what follows of it while its elements are only
            moved: tensor names, from the product downwards.
    """

    topk: int
    softmax: int
    tail: tuple[str, ...]


def find_anchors(flow: Dataflow) -> list[Anchors]:
    """All candidates, in graph order.

    A TopK that ranks anything but products of data (class scores, say) is not one, nor is one whose indices fetch
    nothing that a Softmax attends to.
    """
    found = []
    for index, node in enumerate(flow.nodes):
        if is_standard(node, "TopK") and len(node.output) == 2 and node.output[1] and node.output[0] not in flow.static:
            softmax = _softmax_after(flow, node.output[1]) if _ranks_products(flow, node.input[0]) else None
            product = None if softmax is None else _product_after(flow, softmax)
            if softmax is not None and product is not None:
                found.append(Anchors(index, softmax, _tail(flow, product)))
    return found


def operands(flow: Dataflow, index: int) -> list[str]:
    """The tensors carrying data that a product multiplies, in order; twice the same one for a square."""
    return [name for name in flow.nodes[index].input if name and name not in flow.static]


def weighted_values(flow: Dataflow, anchors: Anchors) -> str | None:
    """The values that the attention weights are multiplied with; None where that is not one product of two tensors."""
    found = [name for name in operands(flow, flow.producer[anchors.tail[0]]) if not _leads_to(flow, name, anchors)]
    return found[0] if len(found) == 1 else None


def _leads_to(flow: Dataflow, name: str, anchors: Anchors) -> bool:
    """Whether a tensor is the softmax's output, but for what may stand behind it."""
    while (index := flow.producer.get(name)) is not None and index != anchors.softmax:
        if not is_standard(flow.nodes[index], *_PASS_OPS) and flow.view_source(index) is None:
            return False
        name = flow.nodes[index].input[0]
    return index is not None


def _ranks_products(flow: Dataflow, logits: str) -> bool:
    """Whether a tensor is made of a product of two data tensors, with no Linear in between."""
    pending, seen = [logits], {logits}
    while pending:
        index = flow.producer.get(pending.pop())
        if index is None:
            continue
        node = flow.nodes[index]
        multiplies = node.op_type in _PRODUCT_OPS or is_standard(node, "Mul")
        if multiplies and len(operands(flow, index)) > 1:
            return True
        linear = node.op_type in _PRODUCT_OPS and flow.view_source(index) is None
        if linear or is_standard(node, *_LINEAR_OPS):
            continue
        new = [name for name in flow.data_inputs(index) if name not in seen]
        seen.update(new)
        pending += new
    return False


def _softmax_after(flow: Dataflow, indices: str) -> int | None:
    """The first Softmax over what was fetched by ``indices`` (or by what is computed from them)."""
    derived, fetched = {indices}, set[str]()
    for index in range(flow.producer[indices] + 1, len(flow.nodes)):
        node = flow.nodes[index]
        inputs = flow.data_inputs(index)
        if not fetched.isdisjoint(inputs):
            if _attends(node):
                return index
            fetched.update(node.output)
        elif not derived.isdisjoint(inputs):
            (fetched if _fetches(node, inputs, derived) else derived).update(node.output)
    return None


def _attends(node: onnx.NodeProto) -> bool:
    """Whether a node is a Softmax, or another op, of any domain but this one, that is or holds one by its name."""
    return is_standard(node, "Softmax") or (
        node.domain != DOMAIN and any(word in node.op_type for word in ("Softmax", "Attention"))
    )


def _fetches(node: onnx.NodeProto, inputs: Collection[str], derived: Collection[str]) -> bool:
    if is_standard(node, *_GATHER_OPS):
        return node.input[1] in derived
    return node.op_type in _PICKING_OPS and any(name not in derived for name in inputs)


def _product_after(flow: Dataflow, softmax: int) -> str | None:
    """The product of the attention weights with the values; None where they are not used so."""
    node = flow.nodes[softmax]
    if "Attention" in node.op_type:
        return str(node.output[0])
    pending = [str(node.output[0])]
    while pending:
        for index in flow.readers(pending.pop(0)):
            node = flow.nodes[index]
            # A Where may mask the weights: seen, so that the report can say why the block was left.
            if is_standard(node, *_PASS_OPS, "Where") or flow.view_source(index) is not None:
                pending.append(node.output[0])
            elif node.op_type in _PRODUCT_OPS:
                return str(node.output[0])
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
