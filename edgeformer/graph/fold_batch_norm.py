"""Folding inference-time batch normalization into the convolution before or behind it.

BatchNormalization with running statistics is, per channel, ``y = x * a + b`` with ``a = gamma / sqrt(var + eps)`` and
``b = beta - mean * a``. Behind a convolution with weight W and bias c it becomes ``W' = W * a``, ``c' = c * a + b``
(a and b per output channel). Before a convolution without padding it becomes ``W' = W * a`` (per input channel) and
``c' = c + sum(W * b)``; with padding it stays, because the padded zeros would not have passed through ``b``.

A convolution is quantized with the weights that it runs with, so this comes before calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgeformer.graph.editing import UniqueNames, remove_unused, unique_names, without_unused
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute

__all__ = ["fold_batch_norm"]

_Array = npt.NDArray[Any]


def fold_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with every BatchNormalization folded that has a convolution to go to; itself where nothing changes.

    Folded is a BatchNormalization with constant statistics that is the only reader of a convolution's output, or
    whose only reader is an ungrouped convolution without padding. Arithmetic is float64. Shared weights are copied,
    not edited.
    """
    if _find(GraphIndex(model)) is None:
        return without_unused(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    name = unique_names(result)
    # Each fold makes new constants, which the next may fold again.
    while (fold := _find(index := GraphIndex(result))) is not None:
        write = _fold_backward if fold.backward else _fold_forward
        write(result, index, fold, name)
    remove_unused(result)
    return result


@dataclass(frozen=True)
class _Fold:
    """A normalization, its factor and offset per channel, and the convolution before it (``backward``) or behind."""

    norm: onnx.NodeProto
    conv: onnx.NodeProto
    affine: tuple[_Array, _Array]
    backward: bool


def _find(index: GraphIndex) -> _Fold | None:
    for node in index.model.graph.node:
        if node.op_type != "BatchNormalization" or attribute(node, "training_mode", 0):
            continue
        affine = _affine(index, node)
        if affine is None:
            continue
        before = index.producer.get(node.input[0])
        if before and _is_conv(index, before) and index.sole_consumer(node.input[0]) is not None:
            return _Fold(node, before, affine, backward=True)
        behind = index.sole_consumer(node.output[0])
        if behind and _is_conv(index, behind) and behind.input[0] == node.output[0]:
            unpadded = not any(attribute(behind, "pads", ())) and attribute(behind, "auto_pad", b"NOTSET") in _UNPADDED
            if unpadded and attribute(behind, "group", 1) == 1:
                return _Fold(node, behind, affine, backward=False)
    return None


_UNPADDED = (b"NOTSET", b"VALID")


def _is_conv(index: GraphIndex, node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and all(index.array(source) is not None for source in node.input[1:] if source)


def _affine(index: GraphIndex, node: onnx.NodeProto) -> tuple[_Array, _Array] | None:
    """Factor and offset per channel, float64 ``[C]`` each."""
    arrays = [index.array(source) for source in node.input[1:5]]
    if any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, dtype=np.float64) for array in arrays)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return factor, beta - mean * factor


def _conv_weights(index: GraphIndex, conv: onnx.NodeProto) -> tuple[_Array, _Array, npt.DTypeLike]:
    weight = index.array(conv.input[1])
    assert weight is not None
    bias = index.array(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    wide = weight.astype(np.float64)
    return wide, np.zeros(wide.shape[0]) if bias is None else bias.astype(np.float64), weight.dtype


def _fold_backward(
    model: onnx.ModelProto,
    index: GraphIndex,
    fold: _Fold,
    name: UniqueNames,
) -> None:
    norm, conv = fold.norm, fold.conv
    weight, bias, kind = _conv_weights(index, conv)
    factor, offset = fold.affine
    _set_weights(
        model, conv, weight * factor.reshape(-1, 1, 1, *(1,) * (weight.ndim - 3)), bias * factor + offset, kind, name
    )
    conv.output[0] = norm.output[0]
    model.graph.node.remove(norm)


def _fold_forward(
    model: onnx.ModelProto,
    index: GraphIndex,
    fold: _Fold,
    name: UniqueNames,
) -> None:
    norm, conv = fold.norm, fold.conv
    weight, bias, kind = _conv_weights(index, conv)
    factor, offset = fold.affine
    per_input = (1, -1, *(1,) * (weight.ndim - 2))
    spatial = tuple(range(1, weight.ndim))
    added = (weight * offset.reshape(per_input)).sum(axis=spatial)
    _set_weights(model, conv, weight * factor.reshape(per_input), bias + added, kind, name)
    conv.input[0] = norm.input[0]
    model.graph.node.remove(norm)


def _set_weights(
    model: onnx.ModelProto, conv: onnx.NodeProto, weight: _Array, bias: _Array, kind: npt.DTypeLike, name: UniqueNames
) -> None:
    """Give a convolution new constants of its own: an exporter shares equal initializers between layers."""
    base = conv.input[1]
    names = [name(f"{base}_folded"), name(f"{base}_folded_bias")]
    for target, array in zip(names, (weight, bias), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(kind), target))
    del conv.input[1:]
    conv.input.extend(names)
