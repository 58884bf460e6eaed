"""Inserting explicit Q/DQ pairs: what makes a layer INT8 in a strongly typed TensorRT network.

For every layer given, its activation input gets a QuantizeLinear/DequantizeLinear pair of its own and its weight
becomes an INT8 initializer with a DequantizeLinear. Outputs get none. Other readers of the activation - residual
branches above all - keep the float tensor; quantized layers that read one tensor share one pair.

The op ``edgeformer::BiLevelRoutingAttention`` takes INT8 itself: a QuantizeLinear stands in front of it and no
DequantizeLinear, and the op's attributes hold the three scales, one each for queries, keys and values.

Everything is symmetric with zero point 0: ``q = clip(round(x / s), -128, 127)``, ``s = amax / 127``; one scale an
activation tensor, one a weight's output channel. Biases stay float.

Scales are rounded up to numbers that FP32 and FP16 hold exactly, or BF16 where that is asked for
(`representable_scale`): typing the graph then changes no scale. Rounding up costs at most 0.1 % of the range, 0.8 % for
BF16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.editing import UniqueNames, remove_unused, unique_names, with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.protos import attribute, describe
from edgeformer.ops import bi_level_routing_attention as bra

__all__ = [
    "BFLOAT16_SCALE_BITS",
    "QMAX",
    "SCALE_BITS",
    "AttentionSite",
    "ChannelSlice",
    "LayerSite",
    "QuantizedWeight",
    "attention_site",
    "dequantize",
    "insert_qdq",
    "layer_site",
    "min_max_weight",
    "quantize_array",
    "representable_scale",
    "with_float_attention",
]

# QuantizeLinear takes FP16 scales from opset 19 on; 20 is what the exporter writes.
_MINIMUM_OPSET = 20
QMAX = 127
# Of scales, unless BF16 is to hold them.
SCALE_BITS = 11
BFLOAT16_SCALE_BITS = 8
_SMALLEST_STEP = 2.0**-24  # FP16's smallest subnormal: every scale is a multiple of it


@dataclass(frozen=True)
class LayerSite:
    """A layer that can be quantized: a Linear (MatMul, Gemm) or convolution with a constant weight.

    Attributes:
        output: the node's output tensor. Names are optional on ONNX nodes, outputs are unique: this identifies the
            layer.
        activation: the tensor that the layer reads.
        weight: the constant it multiplies with.
        weight_input: position of the weight among the node's inputs.
        axis: the weight's output-channel axis.
    """

    output: str
    activation: str
    weight: str
    weight_input: int
    axis: int


@dataclass(frozen=True)
class ChannelSlice:
    """Neighbouring channels of a tensor, with a range of their own.

    Attributes:
        tensor: whose last axis holds the channels.
        start: the first of them.
        stop: the first behind them.
    """

    tensor: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """What ranges and messages call it: ``qkv[..., 0:64]``."""
        return f"{self.tensor}[..., {self.start}:{self.stop}]"

    def of(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The channels out of the tensor's values."""
        return values[..., self.start : self.stop]


@dataclass(frozen=True)
class AttentionSite:
    """An op node with float input, which could be INT8.

    Attributes:
        output: the node's output tensor, which identifies it.
        query: the queries in the tensor that the node reads.
        key: the keys in it.
        value: the values in it.
    """

    output: str
    query: ChannelSlice
    key: ChannelSlice
    value: ChannelSlice

    @property
    def qkv(self) -> str:
        """The tensor that the node reads."""
        return self.query.tensor

    @property
    def parts(self) -> tuple[ChannelSlice, ChannelSlice, ChannelSlice]:
        """Queries, keys and values, in the order of the channels."""
        return self.query, self.key, self.value

    def scales(self, ranges: Mapping[str, float], significant_bits: int = SCALE_BITS) -> tuple[float, float, float]:
        """The scales of queries, keys and values, as the op's attributes hold them.

        Args:
            ranges: name of each part -> amax.
            significant_bits: of the scales.
        """
        query, key, value = (
            float(representable_scale(ranges[part.name] / QMAX, significant_bits)) for part in self.parts
        )
        return query, key, value

    def channel_scales(
        self, ranges: Mapping[str, float], significant_bits: int = SCALE_BITS
    ) -> npt.NDArray[np.float32]:
        """The same, one for each channel: what a QuantizeLinear of the whole tensor takes."""
        widths = [part.stop - part.start for part in self.parts]
        return np.repeat(np.asarray(self.scales(ranges, significant_bits), dtype=np.float32), widths)


@dataclass(frozen=True)
class QuantizedWeight:
    """An INT8 weight.

    Attributes:
        values: int8, of the weight's shape.
        scales: float32 ``[output channels]``, each representable (`representable_scale`).
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]


def layer_site(index: GraphIndex, node: onnx.NodeProto) -> LayerSite | str:
    """Where the Q/DQ of ``node`` would go, or the reason why the node cannot be quantized.

    A layer is a MatMul or Gemm whose right operand is a constant matrix, or a Conv with a constant weight.
    """
    if node.op_type == "MatMul":
        if not index.is_constant(node.input[1]):
            left = index.is_constant(node.input[0])
            return "its constant is the left operand" if left else "it multiplies two activations"
        rank = len(index.shape(node.input[1]) or ())
        if rank != 2:
            return f"its constant has {rank} dimensions, and a weight matrix has 2"
        axis = 1
    elif node.op_type == "Gemm":
        if attribute(node, "transA", 0):
            return "its activation is transposed (transA)"
        if not index.is_constant(node.input[1]):
            return "it multiplies two activations"
        axis = 0 if attribute(node, "transB", 0) else 1
    elif node.op_type == "Conv":
        if not index.is_constant(node.input[1]):
            return "its weight is computed at run time"
        axis = 0
    else:
        return f"{node.op_type} has no weight"
    if index.is_constant(node.input[0]):
        return "it computes a constant"
    return LayerSite(node.output[0], node.input[0], node.input[1], 1, axis)


def attention_site(index: GraphIndex, node: onnx.NodeProto) -> AttentionSite | str:
    """Where an op node is quantized, or the reason why it cannot be.

    Raises:
        InputError: the node's attributes are wrong.
    """
    attributes = bra.Attributes.from_node(node)
    if attributes.quantized:
        return "it takes INT8 already"
    qkv = node.input[0]
    shape = index.shape(qkv)
    channels = None if shape is None else shape[-1]
    if channels is None:
        return f"the number of channels of {qkv!r} is not known"
    attributes.value_channels(channels)
    ends = (0, attributes.qk_dim, 2 * attributes.qk_dim, channels)
    query, key, value = (ChannelSlice(qkv, *bounds) for bounds in pairwise(ends))
    return AttentionSite(node.output[0], query, key, value)


def representable_scale(scale: npt.ArrayLike, significant_bits: int = SCALE_BITS) -> npt.NDArray[np.float32]:
    """The smallest numbers >= ``scale`` that FP32 and a 16-bit type hold exactly: multiples of 2**-24 of so many bits.

    Args:
        scale: positive finite numbers, any shape. Zero (an all-zero tensor) gives 2**-24.
        significant_bits: 11 for FP16, 8 for BF16 and FP16.
    """
    wide = np.maximum(np.asarray(scale, dtype=np.float64), _SMALLEST_STEP)
    _, exponent = np.frexp(wide)
    step = np.maximum(np.ldexp(1.0, exponent - significant_bits), _SMALLEST_STEP)
    return np.asarray(np.ceil(wide / step) * step, dtype=np.float32)


def quantize_array(
    array: npt.NDArray[Any], scale: npt.NDArray[np.float32], *, axis: int | None = None
) -> npt.NDArray[np.int8]:
    """INT8 values of ``array``: round half to even as QuantizeLinear does, clipped to [-127, 127] so that -x is exact.

    Args:
        array: float, any shape.
        scale: one scale, or with ``axis`` one for each index of that axis.
        axis: the axis that the scales belong to.
    """
    steps = _along(scale, array.ndim, axis)
    return np.asarray(np.clip(np.rint(array.astype(np.float64) / steps), -QMAX, QMAX), dtype=np.int8)


def dequantize(weight: QuantizedWeight, axis: int) -> npt.NDArray[np.float32]:
    """The float weight that an INT8 one stands for."""
    return np.asarray(weight.values * _along(weight.scales, weight.values.ndim, axis), dtype=np.float32)


def _along(scale: npt.NDArray[np.float32], rank: int, axis: int | None) -> npt.NDArray[np.float32]:
    return scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(rank)])


def insert_qdq(
    model: onnx.ModelProto,
    sites: Sequence[LayerSite],
    ranges: Mapping[str, float],
    *,
    weights: Mapping[str, QuantizedWeight] | None = None,
    attention: Sequence[AttentionSite] = (),
    scale_bits: int = SCALE_BITS,
    index: GraphIndex | None = None,
) -> onnx.ModelProto:
    """A copy of ``model`` in which the layers at ``sites`` are INT8; at opset 20 at least.

    Args:
        model: an FP32 graph without Q/DQ.
        sites: the layers, as `layer_site` gives them.
        ranges: activation tensor, or name of an op node's part -> amax, the magnitude that becomes 127.
        weights: layer output -> its INT8 weight; a layer that is not in it gets `min_max_weight` of its own weight.
        attention: the op nodes, as `attention_site` gives them: all of the graph's or none, for they share one body.
        scale_bits: significant bits of scales (`representable_scale`).
        index: of ``model``, where there is one.

    Raises:
        InputError: the model holds Q/DQ already; a range is missing, not finite or negative; a site or weight does
            not fit; some op nodes become INT8 and others do not.
    """
    present = [describe(node) for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if present:
        raise InputError(
            "EF324", f"the model is quantized already ({present[0]} and {len(present) - 1} more): give the float model"
        )
    raised = raise_opset(model, _MINIMUM_OPSET)
    if index is None or raised is not model:
        index = GraphIndex(raised)
    _check(index, sites, attention, ranges)
    writer = _Writer(index, unique_names(raised), scale_bits)
    layers = {site.output: site for site in sites}
    attended = {site.output: site for site in attention}
    nodes: list[onnx.NodeProto] = []
    for node in raised.graph.node:
        output = node.output[0] if node.output else ""
        site = layers.get(output)
        if output in attended:
            made, node = writer.attention(node, attended[output], ranges)
            nodes += made
        elif site is not None:
            nodes += writer.activation(site.activation, ranges[site.activation])
            nodes += writer.weight(site, (weights or {}).get(site.output))
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[0] = writer.pairs[site.activation]
            copy.input[site.weight_input] = writer.weights[site.output]
            node = copy
        nodes.append(node)
    result = with_nodes(raised, nodes, writer.initializers)
    return bra.with_function(result) if attention else result


def with_float_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a quantized model, FP32 or FP16, whose op nodes read what was quantized for them, and nothing else
    is changed: what the other layers' INT8 costs without that of the attention.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    made = {name: node for node in result.graph.node for name in node.output}
    added = {"output_type", *bra.QUANTIZATION_SCALES}
    for node in result.graph.node:
        if bra.is_op(node) and bra.Attributes.from_node(node).quantized:
            node.input[0] = made[node.input[0]].input[0]
            kept = [item for item in node.attribute if item.name not in added]
            del node.attribute[:]
            node.attribute.extend(kept)
    remove_unused(result)
    return bra.with_function(result)


def _check(
    index: GraphIndex, sites: Sequence[LayerSite], attention: Sequence[AttentionSite], ranges: Mapping[str, float]
) -> None:
    faults = []
    for site in sites:
        node = index.producer.get(site.output)
        if node is None or layer_site(index, node) != site:
            faults.append(f"{site.output!r} is not a layer of this model that reads {site.activation!r}")
    for place in attention:
        node = index.producer.get(place.output)
        if node is None or not bra.is_op(node) or attention_site(index, node) != place:
            faults.append(f"{place.output!r} is not a float attention of this model that reads {place.qkv!r}")
    parts = [part.name for place in attention for part in place.parts]
    for name in dict.fromkeys([*(site.activation for site in sites), *parts]):
        amax = ranges.get(name)
        if amax is None:
            faults.append(f"no range is known for {name!r}: calibrate this model")
        elif not (np.isfinite(amax) and amax >= 0):
            faults.append(f"the range of {name!r} is {amax}; it must be finite and not negative")
    if faults:
        raise InputError("EF501", "cannot insert Q/DQ: " + "; ".join(faults))


def min_max_weight(weight: npt.NDArray[Any], axis: int, significant_bits: int = SCALE_BITS) -> QuantizedWeight:
    """A weight in INT8 with the largest magnitude of each output channel at 127.

    Args:
        weight: float, any shape.
        axis: its output-channel axis.
        significant_bits: of its scales (`representable_scale`).
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales = representable_scale(np.abs(weight).max(axis=others) / QMAX, significant_bits)
    return QuantizedWeight(quantize_array(weight, scales, axis=axis), scales)


class _Writer:
    """Makes the Q/DQ nodes and their constants, one pair an activation."""

    def __init__(self, index: GraphIndex, name: UniqueNames, scale_bits: int) -> None:
        self._index = index
        self._scale_bits = scale_bits
        self._name = name
        self.pairs: dict[str, str] = {}  # activation -> its dequantized twin
        self.weights: dict[str, str] = {}  # layer output -> its dequantized weight
        self._quantized: dict[tuple[ChannelSlice, ...], str] = {}  # an op node's parts -> its INT8 input
        self.initializers: list[onnx.TensorProto] = []

    def activation(self, tensor: str, amax: float) -> list[onnx.NodeProto]:
        if tensor in self.pairs:
            return []
        scale = self._constant(f"{tensor}_scale", representable_scale(amax / QMAX, self._scale_bits))
        zero = self._constant(f"{tensor}_zero_point", np.asarray(0, dtype=np.int8))
        quantized, restored = self._name(f"{tensor}_quantized"), self._name(f"{tensor}_dequantized")
        self.pairs[tensor] = restored
        return [
            self._node("QuantizeLinear", [tensor, scale, zero], quantized),
            self._node("DequantizeLinear", [quantized, scale, zero], restored),
        ]

    def weight(self, site: LayerSite, given: QuantizedWeight | None) -> list[onnx.NodeProto]:
        original = self._index.array(site.weight)
        assert original is not None
        weight = given or min_max_weight(original, site.axis, self._scale_bits)
        if weight.values.shape != original.shape or weight.scales.shape != (original.shape[site.axis],):
            raise InputError(
                "EF501",
                f"the INT8 weight of {site.output!r} has shape {weight.values.shape} and {weight.scales.shape} scales; "
                f"the layer's weight has shape {original.shape} and {original.shape[site.axis]} output channels",
            )
        values = self._constant(f"{site.weight}_int8", weight.values)
        scale = self._constant(f"{site.weight}_scale", weight.scales)
        zero = self._constant(f"{site.weight}_zero_point", np.zeros(weight.scales.shape, dtype=np.int8))
        restored = self._name(f"{site.weight}_dequantized")
        self.weights[site.output] = restored
        return [self._node("DequantizeLinear", [values, scale, zero], restored, axis=site.axis)]

    def attention(
        self, node: onnx.NodeProto, site: AttentionSite, ranges: Mapping[str, float]
    ) -> tuple[list[onnx.NodeProto], onnx.NodeProto]:
        """What an op node needs in front of it, and the node in INT8; its output stays FLOAT."""
        made = []
        if site.parts not in self._quantized:
            scales = site.channel_scales(ranges, self._scale_bits)
            scale = self._constant(f"{site.qkv}_scale", scales)
            zero = self._constant(f"{site.qkv}_zero_point", np.zeros(scales.shape, dtype=np.int8))
            quantized = self._name(f"{site.qkv}_quantized")
            made.append(self._node("QuantizeLinear", [site.qkv, scale, zero], quantized, axis=3))
            self._quantized[site.parts] = quantized
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0] = self._quantized[site.parts]
        values = dict(zip(bra.QUANTIZATION_SCALES, site.scales(ranges, self._scale_bits), strict=True))
        copy.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
        copy.attribute.append(helper.make_attribute("output_type", TensorProto.FLOAT))
        return made, copy

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], name=self._name(f"{output}_{op_type}"), **attributes)

    def _constant(self, wanted: str, array: npt.NDArray[Any]) -> str:
        name = self._name(wanted)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name
