"""Run a bfloat16 graph where there are no bfloat16 kernels: FP32 arithmetic, every value rounded to bfloat16.

A kernel that reads bfloat16, accumulates in FP32 and writes bfloat16 (which is what a GPU's tensor cores do) gives the
same, but for the order of its sums.
"""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.helper import make_node

from edgeformer.errors import InputError
from edgeformer.runtime.inlining import inline_functions

__all__ = ["has_bfloat16", "with_bfloat16_rounding"]

# The attribute by which an operator's node says what type it gives.
_TYPE_ATTRIBUTES = {"Cast": "to", "EyeLike": "dtype", "DequantizeLinear": "output_dtype"}


def _graphs(graph: GraphProto) -> Iterable[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                yield from _graphs(inner)


def _makes_bfloat16(node: NodeProto) -> bool:
    return any(
        (attribute.name == _TYPE_ATTRIBUTES.get(node.op_type) and attribute.i == TensorProto.BFLOAT16)
        or (attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.BFLOAT16)
        for attribute in node.attribute
    )


def has_bfloat16(model: ModelProto) -> bool:
    """Whether any input, weight or cast of the model is of type bfloat16."""
    return any(
        any(tensor.data_type == TensorProto.BFLOAT16 for tensor in graph.initializer)
        or any(value.type.tensor_type.elem_type == TensorProto.BFLOAT16 for value in graph.input)
        or any(_makes_bfloat16(node) for node in graph.node)
        for graph in _graphs(model.graph)
    )


def _to_float32(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.BFLOAT16:
        array = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _element_types(model: ModelProto) -> dict[str, int]:
    """The element type of every value that shape inference can tell."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
    except Exception as error:
        raise InputError(
            "EF306", f"shape inference cannot tell the types in the model {model.graph.name!r}: {error}"
        ) from error
    values: list[ValueInfoProto] = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    return types


def with_bfloat16_rounding(model: ModelProto) -> ModelProto:
    """A copy that computes in FP32 and rounds every value that ``model`` holds in bfloat16; functions are inlined.

    Inputs and outputs of type bfloat16 become FP32 (an input is rounded first).

    Raises:
        InputError: the model has subgraphs (If, Loop), or shape inference cannot tell its types.
    """
    result = inline_functions(model)
    graph = result.graph
    if sum(1 for _ in _graphs(graph)) > 1:
        raise InputError(
            "EF808",
            f"the model {graph.name!r} has If, Loop or Scan in it, where bfloat16 cannot be run on the CPU: run it as "
            "FP16 or FP32",
        )
    types = _element_types(result)
    unknown = [name for node in graph.node for name in node.output if name and not types.get(name)]
    if unknown:
        raise InputError(
            "EF306",
            f"shape inference cannot tell the types of {', '.join(unknown[:5])} in the model {graph.name!r}: bfloat16 "
            "cannot be run on the CPU without them. Add them as value_info",
        )
    rounded = {name for name, element_type in types.items() if element_type == TensorProto.BFLOAT16}
    nodes: list[NodeProto] = []

    def add_rounding(source: str, target: str) -> None:
        half = f"{target}::bfloat16"
        nodes.append(make_node("Cast", [source], [half], name=f"{target}::round", to=TensorProto.BFLOAT16))
        nodes.append(make_node("Cast", [half], [target], name=f"{target}::widen", to=TensorProto.FLOAT))

    renamed = {value.name: f"{value.name}::rounded" for value in graph.input if value.name in rounded}
    for name, target in renamed.items():
        add_rounding(name, target)
    for node in graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = renamed.get(name, name)
        for attribute in copy.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _to_float32(attribute.t)
            elif attribute.name == _TYPE_ATTRIBUTES.get(node.op_type) and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
        nodes.append(copy)
        for index, name in enumerate(node.output):
            if name in rounded:
                copy.output[index] = f"{name}::float32"
                add_rounding(copy.output[index], name)
    for tensor in graph.initializer:
        _to_float32(tensor)
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    del graph.node[:]
    graph.node.extend(nodes)
    return result
