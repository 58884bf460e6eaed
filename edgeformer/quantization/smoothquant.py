"""SmoothQuant: making activations easier to quantize without changing what the network computes.

Between a LayerNormalization (scale gamma, offset beta a channel) and the Linears (weight W, bias b) that read it,
scale and offset of every channel can be moved freely: with a factor d and an offset c a channel,

    gamma' = gamma / d,  beta' = (beta - c) / d,  W' = d * W (row by row),  b' = b + c @ W

gives the same result in exact arithmetic. One INT8 scale serves all channels of the activation, so c centres each
channel's range, and d evens out the ranges, as far as the weights can bear it: d = sqrt(r / w) with r the channel's
half range and w the largest weight of its row (SmoothQuant, arXiv 2211.10438, with alpha 0.5; the offset as in
Outlier Suppression+, arXiv 2304.09145).

Behind a GELU the activation is one-sided, and a symmetric scale would leave half of its steps unused. There a scalar
offset in front of the Q/DQ pair centres it, undone in the bias of the layer: ``(x - c) @ W + (b + c @ W)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.bias import add_to_bias, bias_of, replace_constant
from edgeformer.graph.editing import UniqueNames, complete, draft, unique_names
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute
from edgeformer.graph.qdq import LayerSite
from edgeformer.quantization.calibration import ChannelRange

__all__ = ["apply_smoothquant"]

_Array = npt.NDArray[Any]
# Centring halves the range of a purely one-sided activation. It costs an add, so a small gain is left alone.
_WORTHWHILE = 0.75


def apply_smoothquant(
    model: onnx.ModelProto,
    sites: Sequence[LayerSite],
    channels: Mapping[str, ChannelRange],
    *,
    index: GraphIndex | None = None,
) -> onnx.ModelProto:
    """A copy of ``model`` that computes the same, with activations at ``sites`` that lose less in INT8.

    Tensor and node names stay; a centred activation is a new tensor, and the layer reads that.

    Args:
        model: an FP32 graph without Q/DQ.
        sites: the layers to be quantized.
        channels: ranges of the channels of every site's activation.
        index: of ``model``, where there is one.
    """
    result = draft(model)
    index = (index or GraphIndex(model)).of_draft(result)
    name = unique_names(model)
    readers: dict[str, list[LayerSite]] = {}
    for site in sites:
        readers.setdefault(site.activation, []).append(site)
    for tensor, layers in readers.items():
        norm = index.producer.get(tensor)
        # One axis holds the channels in a norm's output and in what a Linear reads: the last.
        if norm is not None and norm.op_type == "LayerNormalization" and _only_linears_read(index, tensor, layers):
            _move(result, index, norm, layers, channels[tensor], name)
        else:
            _centre(result, index, tensor, layers, channels[tensor], name)
    complete(result, model)
    return result


def _only_linears_read(index: GraphIndex, tensor: str, layers: Sequence[LayerSite]) -> bool:
    outputs = {site.output for site in layers}
    nodes = index.consumers.get(tensor, [])
    return tensor not in index.outputs and all(
        node.output[0] in outputs and node.op_type in ("MatMul", "Gemm") and attribute(node, "alpha", 1.0) == 1.0
        for node in nodes
    )


def _move(
    model: onnx.ModelProto,
    index: GraphIndex,
    norm: onnx.NodeProto,
    layers: Sequence[LayerSite],
    seen: ChannelRange,
    name: UniqueNames,
) -> None:
    gamma = index.array(norm.input[1])
    beta = index.array(norm.input[2]) if len(norm.input) > 2 and norm.input[2] else None
    weights = [_rows(index, site) for site in layers]
    if gamma is None or beta is None or gamma.ndim != 1 or any(len(rows) != gamma.size for rows in weights):
        return
    low, high = np.asarray(seen.minimum), np.asarray(seen.maximum)
    has_bias = all(_has_bias(index, site) for site in layers)
    offset = (low + high) / 2 if has_bias else np.zeros_like(low)
    reach = np.maximum(high - offset, offset - low)
    strongest = np.max([np.abs(rows).max(axis=1) for rows in weights], axis=0)
    factor = np.ones_like(reach)
    usable = (reach > 0) & (strongest > 0)
    factor[usable] = np.sqrt(reach[usable] / strongest[usable])
    factor[usable] /= np.exp(np.log(factor[usable]).mean())
    replace_constant(model, norm, 1, gamma / factor, name)
    replace_constant(model, norm, 2, (beta - offset) / factor, name)
    for site, rows in zip(layers, weights, strict=True):
        node = index.producer[site.output]
        if has_bias:
            add_to_bias(model, index, node, offset @ rows, name)
        scaled = rows * factor[:, None]
        replace_constant(model, node, site.weight_input, scaled if site.axis == 1 else scaled.T, name)


def _centre(
    model: onnx.ModelProto,
    index: GraphIndex,
    tensor: str,
    layers: Sequence[LayerSite],
    seen: ChannelRange,
    name: UniqueNames,
) -> None:
    low, high = min(seen.minimum), max(seen.maximum)
    nodes = [index.producer[site.output] for site in layers]
    if (high - low) / 2 > _WORTHWHILE * max(abs(low), abs(high)):
        return
    # A convolution pads with zeros, which would have to be padded with -c: only Linears are centred.
    if any(node.op_type == "Conv" for node in nodes) or not all(_has_bias(index, site) for site in layers):
        return
    offset = (low + high) / 2
    centred = name(f"{tensor}_centred")
    constant = name(f"{tensor}_offset")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(-offset, dtype=np.float32), constant))
    add = helper.make_node("Add", [tensor, constant], [centred], name=name(f"{centred}_Add"))
    outputs = {site.output for site in layers}
    position = next(i for i, node in enumerate(model.graph.node) if node.output[0] in outputs)
    model.graph.node.insert(position, add)
    for node, site in zip(nodes, layers, strict=True):
        node.input[0] = centred
        add_to_bias(model, index, node, offset * _rows(index, site).sum(axis=0), name)


def _has_bias(index: GraphIndex, site: LayerSite) -> bool:
    shape = index.shape(site.weight) or ()
    return bias_of(index, index.producer[site.output], shape[site.axis] or 0) is not None


def _rows(index: GraphIndex, site: LayerSite) -> _Array:
    """A Linear's weight as ``[in, out]``, float64."""
    weight = index.array(site.weight)
    assert weight is not None
    return (weight if site.axis == 1 else weight.T).astype(np.float64)
