"""What the protobuf messages of an ONNX model say: attributes, names, domains, types and sub-graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, helper

from edgeformer.records.terms import Precision

__all__ = [
    "FLOAT_TYPES",
    "PACKED",
    "STANDARD_DOMAINS",
    "attribute",
    "captured_names",
    "describe",
    "fed_inputs",
    "float_precision",
    "is_float_cast",
    "is_standard",
    "label",
    "scalar",
    "subgraphs",
    "tensor_bytes",
]

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
# Elements that share a byte where they are stored, by type.
PACKED: dict[int, int] = {
    getattr(TensorProto, name): 8 // bits
    for bits, names in ((4, ("INT4", "UINT4", "FLOAT4E2M1")), (2, ("INT2", "UINT2")))
    for name in names
    if hasattr(TensorProto, name)
}
# Two names of the standard operator set.
STANDARD_DOMAINS = ("", "ai.onnx")


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, or ``default`` where it is absent."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def describe(node: onnx.NodeProto) -> str:
    """How a message names a node: its type and its name, or its first output where it has no name."""
    return f"{node.op_type} {node.name or node.output[0]!r}"


def scalar(array: npt.NDArray[Any] | None) -> float | None:
    """The value of an array with one element, or None."""
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def is_standard(node: onnx.NodeProto, *op_types: str) -> bool:
    """Whether ``node`` is one of these ops of the standard domain."""
    return node.domain in STANDARD_DOMAINS and node.op_type in op_types


def label(node: onnx.NodeProto) -> str:
    """The node's name, or its first output's where it has none."""
    return str(node.name or node.output[0])


def is_float_cast(node: onnx.NodeProto) -> bool:
    """Whether ``node`` is a Cast to FLOAT."""
    return is_standard(node, "Cast") and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT


def captured_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the node's sub-graphs (If, Loop, Scan) read from the graph around them."""
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own.update(name for inner in graph.node for name in inner.output)
        for inner in graph.node:
            yield from (name for name in (*inner.input, *captured_names(inner)) if name and name not in own)
        yield from (value.name for value in graph.output if value.name not in own)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that the node holds itself (the branches of an If, the body of a Loop or Scan), not those in them."""
    for item in node.attribute:
        if item.type == AttributeProto.GRAPH:
            yield item.g
        else:
            yield from item.graphs


def fed_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a run has to be given: an input with an initializer of its name has that for its value."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def float_precision(model: onnx.ModelProto) -> Precision:
    """The narrowest float type that a graph computes in: ``fp32``, ``fp16`` or ``bf16``, BF16 before FP16.

    Told by what says so: inputs, stored tensors, and casts. A cast that another one takes back is enough.
    """
    graph = model.graph
    found = {value.type.tensor_type.elem_type for value in graph.input}
    found.update(tensor.data_type for tensor in graph.initializer)
    for node in graph.node:
        found.update(item.t.data_type for item in node.attribute if item.type == AttributeProto.TENSOR)
        if is_standard(node, "Cast"):
            found.add(attribute(node, "to"))
    return "bf16" if TensorProto.BFLOAT16 in found else "fp16" if TensorProto.FLOAT16 in found else "fp32"


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's elements in bytes, by its shape and type: of data in another file, too, and without a copy."""
    elements, packed = int(math.prod(tensor.dims)), PACKED.get(tensor.data_type)
    if packed is not None:
        return -(-elements // packed)
    return int(elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
