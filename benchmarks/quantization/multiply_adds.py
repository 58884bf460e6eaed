"""How many multiply-adds a model does, and in which types: counted on the graph, whoever made it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

__all__ = ["MultiplyAdds", "multiply_adds"]

# Where the two operands of each operator stand among its inputs.
_OPERANDS = {
    "Conv": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
# Values pass these as they are, or times a constant; what was rounded before is rounded behind.
_PASSING = frozenset(
    [
        "Cast",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Mul",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
_NAMES = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "int4",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "int16",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}
_LOUD = 3


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one image by the types of both operands: "float", "int8", "int4", "int16", "fp8".

    An operand is of the type that it was last rounded to, also where the arithmetic then is in float: a runtime that
    has kernels for the type may use them.
    """

    by_types: Mapping[tuple[str, str], int]

    @property
    def total(self) -> int:
        """Of all types."""
        return sum(self.by_types.values())

    def share(self, first: str, second: str) -> float:
        """Part of all multiply-adds with operands of these types, 0 to 1."""
        return self.by_types.get((first, second), 0) / self.total if self.total else 0.0


def multiply_adds(model: onnx.ModelProto, image: NDArray[Any]) -> MultiplyAdds:
    """Count the multiply-adds of MatMul, Gemm and Conv and of their integer forms.

    Args:
        model: of one input.
        image: ``[1, ...]``, a sample.
    """
    graph = _Graph(onnx.inliner.inline_local_functions(model) if model.functions else model)
    nodes = [node for node in graph.nodes if node.op_type in _OPERANDS]
    shapes = graph.shapes([name for node in nodes for name in (*_operands(node), node.output[0])], image)
    counted: Counter[tuple[str, str]] = Counter()
    for node in nodes:
        first, second = _operands(node)
        types = graph.type_of(first), graph.type_of(second)
        counted[types] += _count(node, shapes[first], shapes[second], shapes[node.output[0]])
    return MultiplyAdds({types: count // graph.batch for types, count in counted.items()})


def _operands(node: NodeProto) -> tuple[str, str]:
    first, second = _OPERANDS[node.op_type]
    return node.input[first], node.input[second]


def _count(node: NodeProto, first: tuple[int, ...], second: tuple[int, ...], output: tuple[int, ...]) -> int:
    if node.op_type in _CONVOLUTIONS:
        return math.prod(output) * math.prod(second[1:])
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return math.prod(output) * (first[0] if transposed else first[-1])


class _Graph:
    """A graph without functions: where tensors come from, how large they are, and what they were rounded to."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.batch = 1
        self.nodes = list(model.graph.node)
        self._maker = {output: node for node in self.nodes for output in node.output if output}
        self._constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                values = [item.t.data_type for item in node.attribute if item.name == "value"]
                self._constants[node.output[0]] = values[0] if values else TensorProto.FLOAT

    def type_of(self, name: str) -> str:
        """What the values of a tensor were last rounded to."""
        while True:
            if name in self._constants:
                return _NAMES.get(self._constants[name], "float")
            node = self._maker.get(name)
            if node is None:
                return "float"
            if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
                return self._written(node)
            if node.op_type == "Mul" and not any(item in self._constants for item in node.input):
                return "float"
            if node.op_type != "DequantizeLinear" and node.op_type not in _PASSING:
                return "float"
            name = node.input[1] if node.op_type == "Mul" and node.input[0] in self._constants else node.input[0]

    def _written(self, node: NodeProto) -> str:
        for item in node.attribute:
            if item.name == "output_dtype" and item.i:
                return _NAMES.get(item.i, "float")
        point = node.input[2] if len(node.input) > 2 else ""
        if point in self._constants:
            return _NAMES.get(self._constants[point], "float")
        return "int8"  # UINT8 is what it means without a zero point

    def shapes(self, names: list[str], image: NDArray[Any]) -> dict[str, tuple[int, ...]]:
        """Sizes of tensors, for the batch that the model has or for one image."""
        shown = onnx.ModelProto()
        shown.CopyFrom(self._model)
        (entry,) = (item for item in shown.graph.input if item.name not in self._constants)
        fixed = entry.type.tensor_type.shape.dim[0].dim_value
        self.batch = fixed or 1
        half = entry.type.tensor_type.elem_type == TensorProto.FLOAT16
        fed = np.resize(image, (self.batch, *image.shape[1:])).astype(np.float16 if half else np.float32)
        found = {tensor.name: tuple(tensor.dims) for tensor in shown.graph.initializer} | {entry.name: fed.shape}
        have = {output.name for output in shown.graph.output}
        asked = sorted({name for name in names if name not in found})
        shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in asked if name not in have)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = _LOUD
        session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = session.run(asked, {entry.name: fed}) if asked else []
        return found | {name: value.shape for name, value in zip(asked, values, strict=True)}
