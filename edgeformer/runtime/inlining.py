"""A graph in place of calls of its functions."""

from __future__ import annotations

from onnx import ModelProto, inliner

from edgeformer.ops.bi_level_routing_attention import DOMAIN

__all__ = ["inline_functions"]


def inline_functions(model: ModelProto) -> ModelProto:
    """A copy of the model with the bodies of its model-local functions in place of the nodes that call them.

    ONNX's inliner leaves out a function whose opset is not the model's. The op's body is written for opset 18 and uses
    nothing that a later one changed, so it takes the model's.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    version = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    for function in copy.functions:
        if function.domain == DOMAIN:
            for entry in function.opset_import:
                if entry.domain in ("", "ai.onnx"):
                    entry.version = max(entry.version, version)
    return inliner.inline_local_functions(copy)
