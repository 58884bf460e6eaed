"""What a precision explains: a part of the float graph with every value rounded as the precision rounds it.

Run on the same inputs as the part itself, it shows what rounding alone costs there, whatever the part computes: a
softmax, a norm of small numbers, a sum that cancels. Nothing of the typed graph goes into it but which layers are
INT8, with which steps calibration meant them to be, and what SmoothQuant moved between a norm and the layers behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.protos import attribute
from edgeformer.graph.qdq import QMAX, dequantize, min_max_weight
from edgeformer.records.terms import Precision

__all__ = ["Quantized", "Read", "expected"]

_Array = npt.NDArray[np.float32]

_ARRAY_TYPES: dict[int, Any] = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
_WEIGHT_AXES = {"MatMul": 1, "Conv": 0}


@dataclass(frozen=True)
class Read:
    """How a tensor is made INT8: ``round((x + shift) / factor / step)``, which stands for a multiple of the step.

    Attributes:
        step: float32, one or one for each of the last axis; None where calibration says nothing, and the largest
            magnitude seen decides.
        shift: what is added before, by SmoothQuant; one number or one for each channel.
        factor: what it is divided by then, one for each channel.
    """

    step: _Array | None = None
    shift: _Array | None = None
    factor: _Array | None = None


@dataclass(frozen=True)
class Quantized:
    """What is INT8 in a part.

    Attributes:
        readers: the first output of each node that reads INT8.
        layers: those of them whose weight, their second input, is INT8, too.
        reads: the tensors that they read.
    """

    readers: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    reads: Mapping[str, Read] = field(default_factory=dict)


def expected(
    part: onnx.ModelProto, floats: Collection[str], precision: Precision, quantized: Quantized | None = None
) -> onnx.ModelProto:
    """A copy of a part of a float graph with every float tensor rounded to the precision.

    Args:
        part: a part of an FP32 graph, without functions.
        floats: the float tensors in it, by name.
        precision: ``fp16`` or ``bf16``; ``int8`` is FP16 with INT8 where ``quantized`` says so.
        quantized: the nodes that read INT8.
    """
    return _Writer(part, floats, precision, quantized or Quantized()).run()


class _Writer:
    def __init__(
        self, part: onnx.ModelProto, floats: Collection[str], precision: Precision, quantized: Quantized
    ) -> None:
        self._part = part
        self._floats = floats
        self._kind = TensorProto.BFLOAT16 if precision == "bf16" else TensorProto.FLOAT16
        self._quantized = quantized
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._replaced: dict[str, str] = {}

    def run(self) -> onnx.ModelProto:
        graph = self._part.graph
        for tensor in graph.initializer:
            self._constants[tensor.name] = self._rounded_weight(tensor)
        limit = float(ml_dtypes.finfo(_ARRAY_TYPES[self._kind]).max)  # type: ignore[no-untyped-call]
        self._add_constant("expected::most", limit)
        self._add_constant("expected::least", -limit)
        for value in graph.input:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                self._replaced[value.name] = f"{value.name}::rounded"
                self._round(value.name, self._replaced[value.name])
        for node in graph.node:
            self._write(node)
        result = onnx.ModelProto(ir_version=self._part.ir_version)
        result.opset_import.extend(self._part.opset_import)
        result.graph.name = f"{graph.name}, rounded"
        result.graph.node.extend(self._nodes)
        result.graph.initializer.extend(self._constants.values())
        result.graph.input.extend(graph.input)
        result.graph.output.extend(graph.output)
        return result

    def _write(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._replaced.get(name, name) for name in node.input]
        added = self._quantize(node, copy) if node.output[0] in self._quantized.readers else None
        self._nodes.append(copy)
        for position, name in enumerate(node.output):
            made = f"{name}::wide" if name in self._floats else name
            copy.output[position] = made
            if position == 0 and added is not None:
                copy.output[0] = f"{name}::shifted"
                self._op("Add", [copy.output[0], self._add_constant(f"{name}::back", added)], made)
            if name in self._floats:
                self._round(made, name)

    def _round(self, source: str, target: str) -> None:
        """Round to 16 bits and back; what is beyond their range ends there, as masks do."""
        self._op("Clip", [source, "expected::least", "expected::most"], f"{target}::clipped")
        self._op("Cast", [f"{target}::clipped"], f"{target}::half", to=self._kind)
        self._op("Cast", [f"{target}::half"], target, to=TensorProto.FLOAT)

    def _quantize(self, node: onnx.NodeProto, copy: onnx.NodeProto) -> _Array | None:
        """Let a node read INT8; gives what is added to its result, which takes the shift of what it reads back."""
        stored = None
        if node.output[0] in self._quantized.layers:
            stored = next((one for one in self._part.graph.initializer if one.name == node.input[1]), None)
            if stored is None:
                # Computed of constants: one step for the whole of it is coarser than the one for each channel.
                copy.input[1] = self._as_int8(copy.input[1], Read(), node.output[0])
        moved = Read()
        for position, name in enumerate(node.input):
            read = self._quantized.reads.get(name)
            if read is None:
                continue
            # Of a layer the weight takes back what SmoothQuant divides by, and the bias what it adds.
            inverse = stored is None
            moved = moved if inverse else read
            copy.input[position] = self._as_int8(copy.input[position], read, node.output[0], inverse=inverse)
        if stored is None:
            return None
        axis = _WEIGHT_AXES.get(node.op_type, 0 if attribute(node, "transB", 0) else 1)
        weight = numpy_helper.to_array(stored)
        rows = weight if axis == 1 else weight.T
        even = weight
        if moved.factor is not None:
            # Inputs are at axis 1 of a convolution's weight, and at the one that outputs are not at of a matrix.
            inputs = 1 if node.op_type == "Conv" else 1 - axis
            shape = [-1 if place == inputs else 1 for place in range(weight.ndim)]
            even = weight * np.broadcast_to(moved.factor.reshape(-1), weight.shape[inputs : inputs + 1]).reshape(shape)
        rounded = dequantize(min_max_weight(even, axis), axis)
        copy.input[1] = self._add_constant(f"{node.output[0]}::weight", rounded)
        return None if moved.shift is None else -(np.broadcast_to(moved.shift, rows.shape[:1]) @ rows)

    def _as_int8(self, source: str, read: Read, owner: str, *, inverse: bool = True) -> str:
        """A tensor in INT8 and back; without ``inverse``, still shifted and divided."""
        target = f"{source}::int8::{owner}"
        if any(target in node.output for node in self._nodes):
            return target
        if read.shift is not None:
            source = self._op("Add", [source, self._add_constant(f"{target}::shift", read.shift)], f"{target}::shifted")
        if read.factor is not None:
            source = self._op("Div", [source, self._add_constant(f"{target}::factor", read.factor)], f"{target}::even")
        if read.step is not None:
            step = self._add_constant(f"{target}::step", read.step)
        else:
            magnitude = self._op("Abs", [source], f"{target}::magnitude")
            largest = self._op("ReduceMax", [magnitude], f"{target}::largest", keepdims=0)
            own = self._op("Mul", [largest, self._add_constant("expected::per_step", 1 / QMAX)], f"{target}::own")
            # A tensor of zeros has steps, too.
            least = self._add_constant("expected::some", np.finfo(np.float32).tiny)
            step = self._op("Max", [own, least], f"{target}::step")
        whole = self._op("Round", [self._op("Div", [source, step], f"{target}::steps")], f"{target}::whole")
        ends = [self._add_constant("expected::first", -QMAX - 1), self._add_constant("expected::last", QMAX)]
        source = self._op("Mul", [self._op("Clip", [whole, *ends], f"{target}::clipped"), step], f"{target}::back")
        if inverse and read.factor is not None:
            source = self._op("Mul", [source, f"{target}::factor"], f"{target}::uneven")
        if inverse and read.shift is not None:
            source = self._op("Sub", [source, f"{target}::shift"], f"{target}::unshifted")
        return self._op("Identity", [source], target)

    def _rounded_weight(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        # Single numbers stay: an epsilon would become zero.
        if tensor.data_type != TensorProto.FLOAT or not tensor.dims or int(np.prod(tensor.dims)) == 1:
            return tensor
        kind = _ARRAY_TYPES[self._kind]
        limit = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]
        wide = numpy_helper.to_array(tensor)
        return numpy_helper.from_array(np.clip(wide, -limit, limit).astype(kind).astype(np.float32), tensor.name)

    def _op(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=f"{output}::node", **attributes))
        return output

    def _add_constant(self, name: str, value: Any) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
        return name
