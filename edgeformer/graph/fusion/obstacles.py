"""What in a candidate cannot be bi-level routing attention, seen without running it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from edgeformer.graph.fusion.anchors import Anchors
from edgeformer.graph.fusion.candidate import Candidate
from edgeformer.graph.fusion.dataflow import VIEW_OPS, Dataflow
from edgeformer.graph.protos import is_standard, label

__all__ = ["find_obstacle", "quantized_projection"]

# Everything that a block may consist of. An op with a threshold (Clip, Relu) could differ from the op only on inputs
# that no draw reaches, so it is not for the draws to decide.
_BLOCK_OPS = VIEW_OPS | {
    "Add",
    "AveragePool",
    "Cast",
    "Concat",
    "Conv",
    "Div",
    "Dropout",
    "Einsum",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "Mul",
    "Pad",
    "ReduceMean",
    "ReduceSum",
    "Slice",
    "Softmax",
    "Split",
    "Sub",
    "Tile",
    "TopK",
    "Where",
}
# What turns indices into one-hot rows: exact on integers, and a threshold on anything else.
_INDEX_OPS = ("Equal", "OneHot", "ScatterElements")
_QUANTIZED = ("quantize", "qlinear", "integer")
# Steps from the attention up in which a quantized projection is looked for.
_PROJECTION_STEPS = 8


def find_obstacle(flow: Dataflow, anchors: Anchors, region: Sequence[int]) -> str | None:
    """What makes a candidate another function, whatever the draws may say; None for nothing.

    Args:
        flow: the graph, widened.
        anchors: the candidate.
        region: its nodes.
    """
    topk, softmax = flow.nodes[anchors.topk], flow.nodes[anchors.softmax]
    quantized = [flow.nodes[index] for index in region if _is_quantized(flow.nodes[index])]
    if quantized:
        return (
            f"the attention's products are quantized ({len(quantized)} nodes, the first is {quantized[0].op_type} "
            f"{label(quantized[0])}): give the float model, and quantize after fusing"
        )
    if not is_standard(softmax, "Softmax"):
        return f"{softmax.op_type} ({label(softmax)}) does the attention in one op: export at opset 22 or lower"
    # Tensors that are computed from the picked regions' numbers alone.
    indices = {topk.output[1]}
    for index in region:
        node = flow.nodes[index]
        from_indices = bool(flow.data_inputs(index)) and indices.issuperset(flow.data_inputs(index))
        by_index = from_indices and is_standard(node, *_INDEX_OPS)
        if from_indices:
            indices.update(node.output)
        if not by_index and not is_standard(node, *_BLOCK_OPS):
            return f"{node.op_type} ({label(node)}) is not part of bi-level routing attention"
    if not set(region).isdisjoint(flow.readers(topk.output[0])):
        return "the routing weights (TopK's values) go into the output: soft routing, which the op does not do"
    if next((attribute.i for attribute in topk.attribute if attribute.name == "largest"), 1) != 1:
        return "TopK picks the smallest routing logits; the op picks the largest"
    return None


def quantized_projection(flow: Dataflow, candidate: Candidate) -> str | None:
    """A sentence on the quantized Linear that the queries, keys and values come from; None where none was found."""
    pending = {route.tensor for route in candidate.routes}
    for _ in range(_PROJECTION_STEPS):
        made = sorted({flow.producer[name] for name in pending if name in flow.producer})
        for index in made:
            if "Integer" in flow.nodes[index].op_type or "QLinear" in flow.nodes[index].op_type:
                node = flow.nodes[index]
                return f"The projection is quantized ({node.op_type} {label(node)}): give the float model"
        pending = {name for index in made for name in flow.data_inputs(index)}
    return None


def _is_quantized(node: onnx.NodeProto) -> bool:
    return any(word in node.op_type.lower() for word in _QUANTIZED)
