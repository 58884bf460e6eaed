"""A graph in place of calls of its functions."""

from __future__ import annotations

from onnx import ModelProto, inliner

from edgeformer.ops.bi_level_routing_attention import is_op, with_function

__all__ = ["inline_functions"]


def inline_functions(model: ModelProto) -> ModelProto:
    """A copy of the model with the bodies of its model-local functions in place of the nodes that call them.

    ONNX's inliner leaves out a function whose opset is not the model's, so the op's is put in anew, at that opset.
    """
    has_op = any(is_op(node) for node in model.graph.node)
    return inliner.inline_local_functions(with_function(model) if has_op else model)
