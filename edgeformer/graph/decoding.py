"""Outputs that a graph picks and does not compute: behind a ranking, a threshold or a suppression of boxes."""

from __future__ import annotations

import onnx

from edgeformer.graph.fusion.anchors import find_anchors
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.protos import captured_names, describe, is_standard

__all__ = ["decoded_outputs"]

# The last bit of what they read decides what they give.
_PICKING_OPS = ("ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "TopK", "Unique")


def decoded_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """Outputs of the model that stand behind a node which picks, and that node in words; routing does not count."""
    flow = Dataflow(model)
    routing = {anchors.topk for anchors in find_anchors(flow)}
    behind: dict[str, str] = {}
    for index, node in enumerate(model.graph.node):
        source = next((behind[name] for name in (*node.input, *captured_names(node)) if name in behind), None)
        if is_standard(node, *_PICKING_OPS) and index not in routing:
            source = source or describe(node)
        if source is not None:
            behind.update(dict.fromkeys(node.output, source))
    return {value.name: behind[value.name] for value in model.graph.output if value.name in behind}
