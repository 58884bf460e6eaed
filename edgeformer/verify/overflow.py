"""Where a 16-bit form of a model leaves the range of FP16.

ONNX Runtime's CPU provider computes most of an FP16 graph in FP32, and rounds between operators only where it has to:
what overflows on a GPU comes out finite there. So the float graph is run, and what its tensors reach is held against
the type that they have in the 16-bit one.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgeformer.graph.protos import describe, is_standard
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import Array, as_input, run_in_chunks, static_batch

__all__ = ["LARGEST_FP16", "overflow"]

LARGEST_FP16 = float(np.finfo(np.float16).max)
# From here on a value is rounded up to infinity.
_INFINITE = 65520.0
# Tensors that are looked at in one run, which are in memory at once.
_TENSORS = 128


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
    names = list(made)
    for start in range(0, len(names), _TENSORS):
        chunk = names[start : start + _TENSORS]
        with OnnxSession(reference, outputs=chunk, optimization="basic") as session:
            (given,) = session.inputs
            feeds = {given: as_input(session.inputs[given], images)}
            found = run_in_chunks(session, feeds, static_batch(session) or 1)
        for name in chunk:
            largest = _largest(found[name])
            if largest >= _INFINITE:
                return (
                    f"tensor {name!r} of {describe(made[name])} reaches {largest:g}, and FP16 ends at {LARGEST_FP16:g}"
                )
    return None


def _largest(array: Array) -> float:
    """The greatest magnitude of the finite values: masks of infinity are what they are."""
    if array.dtype.kind != "f":
        return 0.0
    wide = np.abs(array.astype(np.float64))
    return float(wide[np.isfinite(wide)].max(initial=0.0))
