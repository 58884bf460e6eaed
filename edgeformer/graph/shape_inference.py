"""ONNX shape inference without the weights.

`onnx.shape_inference` serializes the model it is given, all weights included, and reads it again twice over: a second
for a hundred megabytes, and nothing beyond 2 GiB. Of a weight it uses type and shape only, and values only of the small
tensors that shapes, axes and sizes come from. So a large tensor is declared here, as an input, and not handed over.
"""

from __future__ import annotations

import onnx
from onnx import helper

from edgeformer.graph.protos import is_standard, tensor_bytes
from edgeformer.ops import bi_level_routing_attention as bra

__all__ = ["declaration", "infer_values", "skeleton"]

# Bytes above which a tensor is a weight. Shapes, axes, bounds and sizes have a number for each axis of a tensor.
_LARGEST_VALUE = 4096


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` in which large initializers and Constant nodes are declared as inputs of the graph.

    Shape inference finds the same in it as in the model, for the price of its nodes alone. It is a snapshot: later
    edits of the model do not show. Tensors in sub-graphs and functions stay.
    """
    result = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name, domain=model.domain)
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    given, graph = model.graph, result.graph
    graph.name = given.name
    graph.input.extend(given.input)
    graph.output.extend(given.output)
    graph.value_info.extend(given.value_info)
    graph.sparse_initializer.extend(given.sparse_initializer)
    for node in given.node:
        weight = _large_constant(node)
        if weight is None:
            graph.node.append(node)
        else:
            graph.input.append(declaration(weight, node.output[0]))
    declared = {value.name for value in (*given.input, *given.value_info)}
    for tensor in given.initializer:
        if tensor_bytes(tensor) <= _LARGEST_VALUE:
            graph.initializer.append(tensor)
        elif tensor.name in declared:
            # An initializer's type is compared with what is declared, so it stays one, but for its data.
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            graph.input.append(declaration(tensor, tensor.name))
    return result


def _large_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if not is_standard(node, "Constant") or not node.attribute or node.attribute[0].name != "value":
        return None
    tensor = node.attribute[0].t
    return tensor if tensor_bytes(tensor) > _LARGEST_VALUE else None


def declaration(tensor: onnx.TensorProto, name: str) -> onnx.ValueInfoProto:
    """Type and shape of a stored tensor, under ``name``."""
    return helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))


def infer_values(model: onnx.ModelProto, *, data_prop: bool = False) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape of every tensor, initializers left out, that ONNX shape inference can tell.

    What the op's nodes make comes out of its function's body, which the model need not carry.

    Args:
        model: any model; `skeleton` is taken of it here.
        data_prop: compute small integer tensors on the way, such as the shape that a Reshape gets from a Concat.

    Raises:
        onnx.shape_inference.InferenceError: what is declared of an initializer contradicts it.
    """
    bare = skeleton(model)
    if any(bra.is_op(node) for node in bare.graph.node):
        bare = bra.with_function(bare)
    graph = onnx.shape_inference.infer_shapes(bare, data_prop=data_prop).graph
    weights = {tensor.name for tensor in model.graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value for value in values if value.name not in weights}
