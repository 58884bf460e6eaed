"""Where a 16-bit form of a model leaves the range of its type."""

from __future__ import annotations

import numpy as np
import onnx

from edgeformer.graph.protos import describe
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import Array, as_input

__all__ = ["overflow"]

# Tensors that are looked at in one run, which are in memory at once.
_TENSORS = 32


def overflow(reference: onnx.ModelProto, typed: onnx.ModelProto, images: Array) -> str | None:
    """The first tensor of ``typed`` that is not finite where the reference's of the same name is, in words, or None.

    Args:
        reference: the float model.
        typed: the same in 16 bits.
        images: float32 ``[samples, 3, height, width]``, as many as the models take at once; few of them do.
    """
    known = {name for node in reference.graph.node for name in node.output}
    made = {name: node for node in typed.graph.node for name in node.output if name in known}
    names = list(made)
    for start in range(0, len(names), _TENSORS):
        chunk = names[start : start + _TENSORS]
        got = _values(typed, chunk, images)
        broken = [name for name in chunk if not _finite(got[name])]
        if not broken:
            continue
        expected = _values(reference, broken, images)
        for name in broken:
            if _finite(expected[name]):
                largest = float(np.abs(expected[name].astype(np.float64)).max(initial=0.0))
                return f"tensor {name!r} of {describe(made[name])}, whose values reach {largest:g} in the float graph"
    return None


def _values(model: onnx.ModelProto, names: list[str], images: Array) -> dict[str, Array]:
    with OnnxSession(model, outputs=names, optimization="none") as session:
        (name,) = session.inputs
        return session.run({name: as_input(session.inputs[name], images)})


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
