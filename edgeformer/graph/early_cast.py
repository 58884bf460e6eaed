"""Making floats of bytes at once: TensorRT takes UINT8 inputs, and casts them, and does nothing else with them."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgeformer.graph.editing import complete, draft, unique_names
from edgeformer.graph.protos import attribute, fed_inputs, is_standard

__all__ = ["with_early_casts"]

# They move values and compute none: what they do to bytes they do to the floats that the bytes are.
_MOVING_OPS = ("Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


def with_early_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the Cast of a UINT8 input in front of what moves its bytes; itself where none is moved.

    Every byte is a whole number that FP32, FP16 and BF16 hold (BF16 has 8 significant bits), so that nothing changes.
    """
    targets = {
        value.name: kind
        for value in fed_inputs(model.graph)
        if value.type.tensor_type.elem_type == TensorProto.UINT8 and (kind := _cast_behind(model.graph, value.name))
    }
    if not targets:
        return model
    result = draft(model)
    name = unique_names(model)
    renamed = {source: name(f"{source}_cast") for source in targets}
    moved = set(targets)
    casts = [
        helper.make_node("Cast", [source], [renamed[source]], name=name(f"{source}_cast_node"), to=kind)
        for source, kind in targets.items()
    ]
    for node in result.graph.node:
        if node.input and node.input[0] in moved and is_standard(node, *_MOVING_OPS):
            moved.update(node.output)
        node.input[:] = [renamed.get(given, given) for given in node.input]
    nodes = [*casts, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    kept = [value for value in model.graph.value_info if value.name not in moved]
    del result.graph.value_info[:]
    result.graph.value_info.extend(kept)
    complete(result, model)
    return result


def _cast_behind(graph: onnx.GraphProto, name: str) -> int | None:
    """The one float type to which all bytes of a tensor are cast after they moved; None where that is not so."""
    names, kinds, moves = {name}, set(), False
    for node in graph.node:
        if not names & set(node.input):
            continue
        if is_standard(node, "Cast"):
            kinds.add(int(attribute(node, "to")))
        elif is_standard(node, *_MOVING_OPS) and node.input[0] in names and not names & set(node.input[1:]):
            names.update(node.output)
            moves = True
        else:
            return None
    if names & {value.name for value in graph.output}:
        return None
    (kind,) = kinds if len(kinds) == 1 else (None,)
    return kind if moves and kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16) else None
