"""The biases of layers: where they stand, and adding to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.editing import UniqueNames
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute

__all__ = ["add_to_bias", "bias_of", "replace_constant"]

_Array = npt.NDArray[Any]


def bias_of(index: GraphIndex, layer: onnx.NodeProto, channels: int) -> tuple[onnx.NodeProto, int] | None:
    """Where a layer's bias stands - a node and the position among its inputs - or None where it has none.

    It is the third input of Conv and Gemm, and behind a MatMul the constant of the Add that alone reads it.

    Args:
        index: of the layer's graph.
        layer: a Conv, Gemm or MatMul.
        channels: its output channels; a constant of another shape is not a bias.
    """
    node, position = layer, 2
    if layer.op_type == "MatMul":
        reader = index.sole_consumer(layer.output[0])
        if reader is None or reader.op_type != "Add":
            return None
        node, position = reader, 1 if reader.input[0] == layer.output[0] else 0
    elif len(layer.input) < 3 or attribute(layer, "beta", 1.0) != 1.0:
        return None
    bias = index.array(node.input[position]) if node.input[position] else None
    return (node, position) if bias is not None and bias.shape == (channels,) else None


def add_to_bias(
    model: onnx.ModelProto, index: GraphIndex, layer: onnx.NodeProto, added: _Array, name: UniqueNames
) -> None:
    """Add a number to each output channel of a layer, in place: in its bias, or behind it where it has none.

    Args:
        model: the graph to edit; ``index`` was made of it.
        index: tensors made meanwhile are unknown to it, so every layer can be edited once.
        layer: a Conv, Gemm or MatMul whose output is not an output of the network.
        added: ``[channels]``.
        name: gives the new tensors their names.
    """
    place = bias_of(index, layer, added.size)
    if place is not None:
        node, position = place
        bias = index.array(node.input[position])
        assert bias is not None
        replace_constant(model, node, position, bias + added, name)
        return
    # Conv keeps its channels at axis 1, the matrix products at the last one.
    rank = len(index.shape(layer.output[0]) or (None, None, None, None)) if layer.op_type == "Conv" else 1
    constant = name(f"{layer.output[0]}_bias")
    shaped = added.reshape(-1, *(1,) * max(rank - 2, 0))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(shaped, dtype=np.float32), constant))
    biased = name(f"{layer.output[0]}_biased")
    for reader in index.consumers.get(layer.output[0], []):
        reader.input[:] = [biased if tensor == layer.output[0] else tensor for tensor in reader.input]
    position = next(i for i, node in enumerate(model.graph.node) if node.output[0] == layer.output[0])
    add = helper.make_node("Add", [layer.output[0], constant], [biased], name=name(f"{biased}_Add"))
    model.graph.node.insert(position + 1, add)


def replace_constant(
    model: onnx.ModelProto, node: onnx.NodeProto, position: int, array: _Array, name: UniqueNames
) -> None:
    """Give a node a constant of its own: exporters share equal initializers between layers."""
    target = name(f"{node.input[position]}_new")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32), target))
    node.input[position] = target
