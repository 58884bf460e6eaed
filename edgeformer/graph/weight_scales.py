"""One weight scale a layer, and what its channels differ by behind the product.

A quantized layer has a scale for each output channel of its weight. TensorRT-RTX 1.7 keeps those out of its INT8
kernels: a convolution comes out in FP32 instead of FP16, and a product at a free batch size is written twice on its way
through scale, bias and quantization. With one scale for the whole tensor it does neither; a factor for each channel
joins the bias and whatever is behind it in one kernel. `docs/activation_memory.md` has the figures. TensorRT itself has
INT8 kernels with a scale for each channel, so graphs for it stay as they are.

A product in front of its factor can be larger than behind it. Where 16 bits might not hold it, whatever the input, the
layer keeps its scales.

Nothing is quantized anew: ``x @ (q * s) = (x @ (q * c)) * (s / c)``, with the smallest power of two ``c`` that is not
below any ``s``. Scales are 8-bit numbers (`qdq.representable_scale`) and stay so, exactly, in FP32, FP16 and BF16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.editing import UniqueNames, unique_names, with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute, scalar

__all__ = ["one_weight_scale"]

# Output-channel axis of the weights.
_CHANNELS = {"MatMul": 1, "Conv": 0}
_LARGEST_INPUT = 128  # of INT8, by magnitude
_LARGEST_PRODUCT = float(np.finfo(np.float16).max)
# Scales are multiples of 2**-24 (`qdq.representable_scale`). What a power of two up to 1 makes of them FP16 holds.
_LARGEST = 1.0


def one_weight_scale(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """``model`` with one weight scale for each quantized Linear and convolution, and how many changed; itself for none.

    Changed are MatMul and Conv nodes that multiply INT8 with INT8, the weight with a scale for each output channel and
    without zero points; the bias of a Conv becomes an Add behind the new factor.

    Args:
        model: a graph with Q/DQ pairs, before or after it was typed.

    Raises:
        InputError: the graph holds control flow.
    """
    writer = _Writer(GraphIndex(model), unique_names(model))
    nodes = [made for node in model.graph.node for made in writer.write(node)]
    if not writer.count:
        return model, 0
    return with_nodes(model, nodes, writer.constants), writer.count


@dataclass(frozen=True)
class _Weight:
    """An INT8 weight with a scale for each output channel.

    Attributes:
        node: the DequantizeLinear.
        values: int8.
        scales: ``[output channels]``.
        common: the one that takes their place.
    """

    node: onnx.NodeProto
    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.floating]
    common: float


class _Writer:
    """Writes one node after another, with what stands around it in the new graph."""

    def __init__(self, index: GraphIndex, name: UniqueNames) -> None:
        self._index = index
        self._name = name
        self.constants: list[onnx.TensorProto] = []
        self.count = 0

    def write(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node itself, or what takes its place."""
        weight = self._weight(node)
        if weight is None:
            return [node]
        self.count += 1
        # [channels] along the last axis of a MatMul, along the second of a Conv.
        shape = [-1] if node.op_type == "MatMul" else [-1] + [1] * (weight.values.ndim - 2)
        output, kind = node.output[0], weight.scales.dtype.type
        values, scales = weight.node.input[:2]
        scale = self._constant(f"{scales}_common", np.asarray(weight.common, kind))
        zero = self._constant(f"{scales}_common_zero_point", np.asarray(0, np.int8))
        factor = self._constant(f"{output}_weight_factor", (weight.scales / kind(weight.common)).reshape(shape))
        dequantize = self._node("DequantizeLinear", [values, scale, zero], f"{weight.node.output[0]}_common")
        product = onnx.NodeProto()
        product.CopyFrom(node)
        product.input[1] = dequantize.output[0]
        product.output[0] = self._name(f"{output}_product")
        bias = product.input.pop(2) if len(product.input) > 2 else ""
        scaled = self._name(f"{output}_scaled") if bias else output
        written = [dequantize, product, self._node("Mul", [product.output[0], factor], scaled)]
        if bias:
            written.append(self._node("Add", [scaled, self._bias(bias, shape, output)], output))
        return written

    def _weight(self, node: onnx.NodeProto) -> _Weight | None:
        """The node's weight; None where there is nothing to change, or no way to."""
        axis = _CHANNELS.get(node.op_type)
        if axis is None:
            return None
        activation, restored = (self._index.producer.get(name) for name in node.input[:2])
        if activation is None or restored is None or {activation.op_type, restored.op_type} != {"DequantizeLinear"}:
            return None
        values, scales, *zeros = (self._index.array(name) for name in restored.input)
        step = scalar(self._index.array(activation.input[1]))
        if values is None or scales is None or step is None or scales.ndim != 1:
            return None
        if attribute(restored, "axis", 1) != axis or any(zero is None or zero.any() for zero in zeros):
            return None
        # The bias has to be a constant to get the rank of the product.
        if len(node.input) > 2 and node.input[2] and self._index.array(node.input[2]) is None:
            return None
        common = _common(scales)
        others = tuple(i for i in range(values.ndim) if i != axis)
        largest = np.abs(values.astype(np.int64)).sum(axis=others).max() * _LARGEST_INPUT * step * common
        return _Weight(restored, values, scales, common) if largest <= _LARGEST_PRODUCT else None

    def _bias(self, name: str, shape: list[int], output: str) -> str:
        bias = self._index.array(name)
        assert bias is not None  # _weight saw it
        return self._constant(f"{output}_bias", bias.reshape(shape))

    def _constant(self, wanted: str, array: npt.NDArray[np.generic]) -> str:
        name = self._name(wanted)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _node(self, op_type: str, inputs: list[str], output: str) -> onnx.NodeProto:
        name = self._name(f"{output}_{op_type}")
        return helper.make_node(op_type, inputs, [output], name=name)


def _common(scales: npt.NDArray[np.floating]) -> float:
    """The smallest power of two that is not below any scale, at most `_LARGEST`."""
    return min(2.0 ** math.ceil(math.log2(float(scales.max()))), _LARGEST)
