"""Weight-only quantization of a float graph: INT8 or INT4 weights of Linears, everything else as it is.

It needs no calibration data. Convolutions stay in float: TensorRT-RTX 1.7 multiplies a Linear with stored integers in
one kernel, and makes the floats of a convolution in kernels of their own, which save nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt
import onnx

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite
from edgeformer.graph.qdq_types import StoredWeight, insert_typed_qdq, int4_weight, int8_weight
from edgeformer.progress import Progress
from edgeformer.quantization.policy import Decision
from edgeformer.quantization.preparation import prepare
from edgeformer.quantization.recipe import Override
from edgeformer.quantization.typed_result import TypedResult, chosen_layers
from edgeformer.records.terms import INT4_BLOCKS

__all__ = ["DEFAULT_INT4_BLOCK", "block_for", "quantize_weights"]

# The smallest that is offered: on a network of few channels it loses least, and its scales are an eighth of its values.
DEFAULT_INT4_BLOCK = INT4_BLOCKS[0]
# Of fewer values a scale each would take as much as the values.
_SMALLEST_BLOCK = 8


def quantize_weights(
    model: onnx.ModelProto,
    precision: Literal["int8-weights", "int4-weights"],
    *,
    overrides: Sequence[Override] = (),
    int4_block: int = DEFAULT_INT4_BLOCK,
    progress: Progress | None = None,
) -> TypedResult:
    """Store the weights of the Linears of ``model`` as integers.

    Args:
        model: an FP32 graph, fused or not.
        precision: ``int8-weights``: one scale an output channel; ``int4-weights``: one a block of input channels.
        overrides: exceptions from the default policy.
        int4_block: input channels that share a scale: 32, 64 or 128. A layer whose inputs it does not divide takes the
            largest smaller block that does.
        progress: told how many layers are done.

    Raises:
        InputError: ``int4_block`` is none of these; the model is quantized or 16-bit already, has nothing to quantize,
            or has weights that are NaN, infinite or beyond FP16.
    """
    if int4_block not in INT4_BLOCKS:
        raise InputError("EF101", f"int4_block {int4_block}: it must be one of {', '.join(map(str, INT4_BLOCKS))}")
    index = GraphIndex(prepare(model))

    def refusal(site: LayerSite, decision: Decision) -> str | None:
        if decision.op_type == "Conv":
            return "a convolution: TensorRT-RTX would make floats of its stored weights in kernels of their own"
        if precision == "int4-weights":
            return _no_int4(index.shape(site.weight), site.axis, int4_block)
        return None

    decisions, sites = chosen_layers(index, precision, overrides, refusal)
    done = 0

    def make(site: LayerSite, weight: npt.NDArray[Any]) -> StoredWeight:
        nonlocal done
        done += 1
        if progress is not None:
            progress("rounding weights", done, len(sites))
        if precision == "int8-weights":
            return int8_weight(weight, site.axis)
        block = block_for(weight.shape[1 - site.axis], int4_block)
        assert block is not None  # refusal saw it
        return int4_weight(weight, site.axis, block)

    return TypedResult(insert_typed_qdq(index.model, sites, make, index=index), precision, decisions)


def block_for(inputs: int, largest: int) -> int | None:
    """The largest block of at most ``largest`` input channels that divides their number; None where none of 8 does.

    ONNX lets the last block be shorter. That TensorRT reads such a graph in the same way is documented nowhere, so that
    all blocks of a layer are of one size here.
    """
    return next((block for block in range(min(inputs, largest), _SMALLEST_BLOCK - 1, -1) if inputs % block == 0), None)


def _no_int4(shape: Sequence[int | None] | None, axis: int, largest: int) -> str | None:
    """Why a weight cannot be INT4; None where it can."""
    sizes = [size or 0 for size in shape or (0, 0)]
    inputs = sizes[1 - axis]
    if sizes[0] * sizes[1] % 2:
        return f"its weight has {sizes[0]} x {sizes[1]} values: TensorRT takes INT4 by the pair"
    if block_for(inputs, largest) is None:
        return f"its {inputs} input channels do not divide into blocks of {_SMALLEST_BLOCK} to {largest}"
    return None
