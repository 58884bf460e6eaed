"""Weights in INT8, INT4 and FP8, and the Q/DQ nodes that make layers of a graph use them.

Where `qdq.insert_qdq` makes layers INT8, weights and activations, these forms round

* the weights alone: an INT8 or INT4 initializer with a DequantizeLinear, which gives the floats that the layer
  multiplies with. INT8 has one scale an output channel, INT4 one a block of neighbouring input channels;
* weights and activations to FP8 E4M3: one scale an output channel, and a Q/DQ pair in front of the activation.

Everything is symmetric; there is no zero point but 0. Each scale is a number that FP16 holds exactly, and the stored
values are rounded with that scale: typing the graph to FP16 afterwards changes nothing. BF16 does not hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.editing import UniqueNames, unique_names, with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.protos import describe
from edgeformer.graph.qdq import LayerSite

__all__ = [
    "E4M3_LARGEST",
    "StoredWeight",
    "WeightType",
    "fp8_scale",
    "fp8_weight",
    "insert_typed_qdq",
    "int4_weight",
    "int8_weight",
    "restored",
]

WeightType = Literal["int8", "int4", "fp8"]

E4M3_LARGEST = 448.0
"""The largest finite magnitude of FP8 E4M3."""

_ENDS: dict[WeightType, tuple[int, int]] = {"int8": (-127, 127), "int4": (-8, 7)}
# DequantizeLinear has blocks and INT4 from opset 21 on; 20 is what the exporter writes, and has 16-bit scales and FP8.
_OPSETS: dict[WeightType, int] = {"int8": 20, "fp8": 20, "int4": 21}
_KINDS: dict[WeightType, int] = {
    "int8": TensorProto.INT8,
    "int4": TensorProto.INT4,
    "fp8": TensorProto.FLOAT8E4M3FN,
}
# Shares of the largest magnitude that a scale is tried for. All of it comes first: it stays where no other is better.
_SHARES: dict[WeightType, tuple[float, ...]] = {
    "int8": (1.0, *(1.0 - 0.02 * step for step in range(1, 11))),
    "int4": (1.0, *(1.0 - 0.025 * step for step in range(1, 17))),
}
# FP16 has 11 significant bits, and no positive number below this one.
_SMALLEST = 2.0**-24
_LARGEST_FP16 = 65504.0


@dataclass(frozen=True)
class StoredWeight:
    """A weight as a graph stores it.

    Attributes:
        kind: its type.
        values: of the weight's shape: int8, of which INT4 takes -8 to 7, or float8_e4m3fn.
        scales: float32, each exact in FP16: ``[output channels]``, or with blocks of the weight's shape with
            ``ceil(inputs / block)`` along ``axis``.
        axis: the output-channel axis, or with blocks the axis that they lie along.
        block: values that share a scale along ``axis``; None without blocks. The last block may be shorter.
    """

    kind: WeightType
    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float32]
    axis: int
    block: int | None = None


def int8_weight(weight: npt.NDArray[Any], axis: int) -> StoredWeight:
    """A weight in INT8, with the scale of each output channel that leaves the smallest square error.

    Tried are scales that make 80 to 100 % of the channel's largest magnitude 127. A channel of zeros has scale 1.

    Args:
        weight: float, any shape, finite.
        axis: its output-channel axis.
    """
    rows = np.moveaxis(weight, axis, 0).astype(np.float32)
    codes, scales = _best(rows.reshape(len(rows), -1), "int8")
    return StoredWeight("int8", np.moveaxis(codes.reshape(rows.shape), 0, axis), scales, axis)


def int4_weight(weight: npt.NDArray[Any], axis: int, block: int) -> StoredWeight:
    """A weight matrix in INT4, with the scale of each block of input channels that leaves the smallest square error.

    Tried are scales that make 60 to 100 % of the block's largest magnitude 7; the values go from -8 to 7. A block of
    zeros has scale 1.

    Args:
        weight: float, two axes, finite.
        axis: its output-channel axis; blocks lie along the other.
        block: input channels that share a scale. Where it does not divide their number the last block is shorter.
    """
    columns = weight if axis == 1 else weight.T  # [inputs, outputs]
    inputs, outputs = columns.shape
    count = -(-inputs // block)
    # Zeros behind the last block round to zero whatever the scale: they add no error.
    padded = np.zeros((count * block, outputs), np.float32)
    padded[:inputs] = columns
    rows = padded.reshape(count, block, outputs).transpose(0, 2, 1).reshape(count * outputs, block)
    codes, scales = _best(rows, "int4")
    values = codes.reshape(count, outputs, block).transpose(0, 2, 1).reshape(count * block, outputs)[:inputs]
    laid = scales.reshape(count, outputs)
    if axis == 0:
        values, laid = values.T, laid.T
    return StoredWeight("int4", np.ascontiguousarray(values), np.ascontiguousarray(laid), 1 - axis, block)


def fp8_weight(weight: npt.NDArray[Any], axis: int) -> StoredWeight:
    """A weight in FP8 E4M3: the largest magnitude of each output channel becomes 448. A channel of zeros has scale 1.

    Args:
        weight: float, any shape, finite.
        axis: its output-channel axis.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales = fp8_scale(np.abs(weight).max(axis=others))
    steps = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return StoredWeight("fp8", _to_e4m3(weight.astype(np.float32) / steps), scales, axis)


def fp8_scale(amax: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The scale with which a magnitude becomes 448, or a little less: the next one up that FP16 holds exactly.

    Args:
        amax: finite magnitudes, any shape; 0 gives scale 1.
    """
    wide = np.asarray(amax, np.float64)
    exact = np.minimum(wide / E4M3_LARGEST, _LARGEST_FP16)
    scale = exact.astype(np.float16)
    with np.errstate(over="ignore"):  # behind the largest, which is not rounded up
        up = np.nextafter(scale, np.float16(np.inf))
    scale = np.where(scale.astype(np.float64) < exact, up, scale)
    return np.asarray(np.where(wide > 0, scale.astype(np.float32), 1.0), np.float32)


def restored(weight: StoredWeight) -> npt.NDArray[np.float32]:
    """The float weight that a stored one stands for, as a DequantizeLinear in FP32 gives it."""
    values, scales = weight.values.astype(np.float32), weight.scales
    if weight.block is None:
        scales = scales.reshape([-1 if i == weight.axis else 1 for i in range(values.ndim)])
    else:
        size = values.shape[weight.axis]
        scales = np.repeat(scales, weight.block, axis=weight.axis).take(range(size), axis=weight.axis)
    return np.asarray(values * scales, np.float32)


def _best(
    rows: npt.NDArray[np.float32], kind: Literal["int8", "int4"]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers and scales of rows of numbers, one scale a row: of those tried the one with least square error."""
    low, high = _ENDS[kind]
    amax = np.abs(rows).max(axis=1, initial=0.0)
    codes = np.zeros(rows.shape, np.int8)
    scales = np.ones(len(rows), np.float32)
    smallest = np.full(len(rows), np.inf, np.float32)
    for share in _SHARES[kind]:
        tried = _in_fp16(amax * np.float32(share / high))
        whole = np.clip(np.rint(rows / tried[:, None]), low, high)
        error = np.square(whole * tried[:, None] - rows).sum(axis=1)
        better = (error < smallest) & (amax > 0)
        smallest[better], scales[better] = error[better], tried[better]
        codes[better] = whole[better].astype(np.int8)
    return codes, scales


def _in_fp16(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The nearest numbers that FP16 holds, none of them 0."""
    narrow = np.minimum(scales, _LARGEST_FP16).astype(np.float16)
    return np.asarray(np.maximum(narrow.astype(np.float32), _SMALLEST), np.float32)


def _to_e4m3(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    # Beyond 448 the cast would give NaN, where QuantizeLinear saturates.
    return np.clip(values, -E4M3_LARGEST, E4M3_LARGEST).astype(ml_dtypes.float8_e4m3fn)


def insert_typed_qdq(
    model: onnx.ModelProto,
    sites: Sequence[LayerSite],
    make: Callable[[LayerSite, npt.NDArray[Any]], StoredWeight],
    *,
    ranges: Mapping[str, float] | None = None,
    index: GraphIndex | None = None,
) -> onnx.ModelProto:
    """A copy of ``model`` in which the layers at ``sites`` multiply with stored weights; at opset 20, for INT4 21.

    Args:
        model: an FP32 graph without Q/DQ.
        sites: the layers, as `qdq.layer_site` gives them.
        make: stores a layer's weight; called once for each weight and axis, whichever layers share it.
        ranges: for FP8: activation -> amax, the magnitude that becomes 448. None leaves the activations in float.
        index: of ``model``, where there is one.

    Raises:
        InputError: the model holds Q/DQ already; a weight is not finite, or is beyond what FP16 holds; a range is
            missing, not finite or negative.
    """
    present = [describe(node) for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if present:
        raise InputError(
            "EF324", f"the model is quantized already ({present[0]} and {len(present) - 1} more): give the float model"
        )
    index = index or GraphIndex(model)
    _check(index, sites, ranges)
    stored: dict[tuple[str, int], StoredWeight] = {}
    for site in sites:
        if (site.weight, site.axis) not in stored:
            array = index.array(site.weight)
            assert array is not None  # _check saw it
            stored[site.weight, site.axis] = make(site, array)
    opset = max((_OPSETS[weight.kind] for weight in stored.values()), default=20)
    raised = raise_opset(model, opset)
    writer = _Writer(unique_names(raised), stored)
    layers = {site.output: site for site in sites}
    nodes: list[onnx.NodeProto] = []
    for node in raised.graph.node:
        layer = layers.get(node.output[0]) if node.output else None
        if layer is not None:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if ranges is not None:
                nodes += writer.activation(layer.activation, ranges[layer.activation])
                copy.input[0] = writer.pairs[layer.activation]
            nodes += writer.weight(layer)
            copy.input[layer.weight_input] = writer.weights[layer.weight, layer.axis]
            node = copy
        nodes.append(node)
    return with_nodes(raised, nodes, writer.initializers)


def _check(index: GraphIndex, sites: Sequence[LayerSite], ranges: Mapping[str, float] | None) -> None:
    for site in sites:
        array = index.array(site.weight)
        if array is None:
            raise InputError("EF501", f"cannot insert Q/DQ: {site.output!r} has no constant weight in this model")
        broken = int(np.count_nonzero(~np.isfinite(array)))
        if broken:
            raise InputError(
                "EF546",
                f"the weight {site.weight!r} of layer {site.output!r} has {broken} values of {array.size} that are NaN "
                "or infinite: train or export the model again",
            )
        largest = float(np.abs(array).max(initial=0.0))
        if largest > _LARGEST_FP16:
            raise InputError(
                "EF546",
                f"the weight {site.weight!r} of layer {site.output!r} reaches {largest:g}, and FP16, in which it is "
                f"multiplied, ends at {_LARGEST_FP16:g}: rescale or retrain it",
            )
        amax = 0.0 if ranges is None else ranges.get(site.activation)
        if amax is None or not (np.isfinite(amax) and amax >= 0):
            raise InputError(
                "EF501",
                f"cannot insert Q/DQ: the range of {site.activation!r} is "
                f"{'not known: calibrate this model' if amax is None else f'{amax}; it must be finite, not negative'}",
            )


class _Writer:
    """Makes the Q/DQ nodes and their constants: one pair an activation, one DequantizeLinear a weight."""

    def __init__(self, name: UniqueNames, stored: Mapping[tuple[str, int], StoredWeight]) -> None:
        self._name = name
        self._stored = stored
        self.pairs: dict[str, str] = {}  # activation -> its dequantized twin
        self.weights: dict[tuple[str, int], str] = {}  # weight and axis -> the dequantized weight
        self.initializers: list[onnx.TensorProto] = []

    def activation(self, tensor: str, amax: float) -> list[onnx.NodeProto]:
        """The pair in front of what reads ``tensor``; nothing where it is there already."""
        if tensor in self.pairs:
            return []
        scale = self._constant(f"{tensor}_scale", numpy_helper.from_array(fp8_scale(amax)))
        zero = self._constant(f"{tensor}_zero_point", _tensor("fp8", np.zeros((), ml_dtypes.float8_e4m3fn)))
        quantized, given_back = self._name(f"{tensor}_quantized"), self._name(f"{tensor}_dequantized")
        self.pairs[tensor] = given_back
        return [
            self._node("QuantizeLinear", [tensor, scale, zero], quantized),
            self._node("DequantizeLinear", [quantized, scale, zero], given_back),
        ]

    def weight(self, site: LayerSite) -> list[onnx.NodeProto]:
        """The DequantizeLinear of a layer's weight; nothing where it is there already."""
        key = (site.weight, site.axis)
        if key in self.weights:
            return []
        weight = self._stored[key]
        values = self._constant(f"{site.weight}_{weight.kind}", _tensor(weight.kind, weight.values))
        scale = self._constant(f"{site.weight}_scale", numpy_helper.from_array(weight.scales))
        self.weights[key] = self._name(f"{site.weight}_dequantized")
        blocks = {} if weight.block is None else {"block_size": weight.block}
        return [self._node("DequantizeLinear", [values, scale], self.weights[key], axis=weight.axis, **blocks)]

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], name=self._name(f"{output}_{op_type}"), **attributes)

    def _constant(self, wanted: str, tensor: onnx.TensorProto) -> str:
        tensor.name = self._name(wanted)
        self.initializers.append(tensor)
        return str(tensor.name)


def _tensor(kind: WeightType, values: npt.NDArray[Any]) -> onnx.TensorProto:
    """A tensor without a name: raw bytes, of INT4 two values a byte, the first in the low bits."""
    tensor = onnx.TensorProto(data_type=_KINDS[kind], dims=values.shape)
    if kind == "int4":
        flat = values.astype(np.uint8).ravel() & 15
        if flat.size % 2:
            flat = np.append(flat, np.uint8(0))
        tensor.raw_data = (flat[0::2] | (flat[1::2] << 4)).tobytes()
    else:
        tensor.raw_data = np.ascontiguousarray(values).tobytes()
    return tensor
