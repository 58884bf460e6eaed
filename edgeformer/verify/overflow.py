"""Where a 16-bit form of a model leaves the range of FP16.

ONNX Runtime's CPU provider computes most of an FP16 graph in FP32, and rounds between operators only where it has to:
what overflows on a GPU comes out finite there. So the float graph is run, and what its tensors reach is held against
the type that they have in the 16-bit one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.editing import complete, draft, unique_names
from edgeformer.graph.node_order import sort_nodes
from edgeformer.graph.protos import describe, is_standard
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import Array, as_input, run_in_chunks, static_batch

__all__ = ["LARGEST_FP16", "overflow"]

LARGEST_FP16 = float(np.finfo(np.float16).max)
# From here on a value is rounded up to infinity.
_INFINITE = 65520.0


def overflow(reference: onnx.ModelProto, typed: onnx.ModelProto, images: Array) -> str | None:
    """The first tensor that is FP16 in ``typed`` and beyond its range in the float graph, in words; None without one.

    Args:
        reference: the float graph.
        typed: the same in 16 bits, with a type for each of its tensors, as `to_float_type` declares them. Tensors are
            told by their names.
        images: float32 ``[samples, 3, height, width]``: a few, all of which are looked at.

    Raises:
        InputError: the float graph does not run on these images.
    """
    values = (*typed.graph.value_info, *typed.graph.output)
    half = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    # An output is cast back to FLOAT at the border, under its own name.
    half.update(node.output[0] for node in typed.graph.node if is_standard(node, "Cast") and node.input[0] in half)
    made = {name: node for node in reference.graph.node for name in node.output if name in half}
    if not made:
        return None
    watched, ends = _with_largest(reference, list(made))
    with OnnxSession(watched, outputs=list(ends.values()), optimization="basic", as_written=True) as session:
        (given,) = session.inputs
        feeds = {given: as_input(session.inputs[given], images)}
        found = run_in_chunks(session, feeds, static_batch(session) or 1)
    for name, end in ends.items():
        largest = float(found[end].max())
        if largest >= _INFINITE:
            return f"tensor {name!r} of {describe(made[name])} reaches {largest:g}, and FP16 ends at {LARGEST_FP16:g}"
    return None


def _with_largest(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model with the greatest finite magnitude of each tensor, float32 ``[1]``, for its only outputs.

    Computed in the graph, so that no more than one of the tensors need be kept. Infinite values are left out: masks of
    infinity are what they are.

    Returns:
        The model, and tensor -> name of its output.
    """
    result, name = draft(model), unique_names(model)
    constants = {key: name(key) for key in ("largest_axis", "largest_limit", "largest_none")}
    axis, limit, none = constants.values()
    arrays = (np.array([-1]), np.array(np.inf, np.float32), np.zeros(1, np.float32))
    result.graph.initializer.extend(map(numpy_helper.from_array, arrays, constants.values()))
    nodes: list[onnx.NodeProto] = []

    def op(op_type: str, *inputs: str, **attributes: Any) -> str:
        made = name(f"largest_{op_type}")
        nodes.append(helper.make_node(op_type, inputs, [made], name=name(f"{made}_node"), **attributes))
        return made

    ends = {}
    for tensor in tensors:
        flat = op("Cast", op("Reshape", tensor, axis), to=TensorProto.FLOAT)
        magnitude = op("Abs", flat)
        finite = op("Where", op("Less", magnitude, limit), magnitude, none)
        # With a zero beside it, there is a greatest value in an empty tensor as well.
        ends[tensor] = op("ReduceMax", op("Concat", finite, none, axis=0), keepdims=1)
    result.graph.node.extend(nodes)
    del result.graph.output[:]
    result.graph.output.extend(helper.make_empty_tensor_value_info(end) for end in ends.values())
    sort_nodes(result, early=len(nodes))
    complete(result, model)
    return result, ends
