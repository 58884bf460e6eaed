"""From an FP32 graph to a strongly typed FP16 or BF16 one.

TensorRT 11 and TensorRT-RTX take the types of a graph literally: there is no builder flag that would pick a
precision. So the graph says it all: weights and activations 16-bit; FP32 where 16 bits lose too much (`float_rules`),
with a Cast at every border; shapes and indices untouched.

* The op ``edgeformer::BiLevelRoutingAttention`` takes and gives 16 bits; its body and its plugin keep means, routing
  and softmax in FP32 themselves. LayerNormalization takes 16 bits and keeps its statistics in FP32 (``stash_type`` 1).
* Q/DQ pairs take 16-bit scales, and so give 16 bits. `qdq.insert_qdq` chooses scales that 16 bits hold exactly, so
  typing a quantized graph changes no scale.
* What is computed from shapes and constants alone stays in FP32 until an activation meets it.
* A Cast to FLOAT gives FLOAT, as its author wrote. In a graph that is 16-bit already, the nodes behind such a Cast stay
  FP32 up to the Cast that ends the island.
* What brings a mask beyond 16 bits (-1e9) into the logits of a softmax is FP32, as the softmax is.
* Weights lose what 16 bits cannot hold: FP16 has 11 significant bits and rounds magnitudes below 2**-25 to zero.
  Magnitudes beyond its range are an error.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.editing import unique_names, with_nodes
from edgeformer.graph.float_rules import float32_nodes, mask_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import model_opset, raise_opset
from edgeformer.graph.protos import FLOAT_TYPES, STANDARD_DOMAINS, attribute, fed_inputs
from edgeformer.ops import bi_level_routing_attention as bra

__all__ = ["FloatType", "to_float_type"]

FloatType = Literal["float16", "bfloat16"]

_logger = logging.getLogger(__name__)

_KINDS: dict[str, int] = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
_ARRAY_TYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}
# QuantizeLinear takes 16-bit scales from opset 19 on, Conv takes BFLOAT16 from opset 22 on.
_MINIMUM_OPSET = {"float16": 19, "bfloat16": 22}
# These move, pick or compare values and compute none: they take the type that comes.
_FOLLOWING_OPS = frozenset(
    {
        "Abs",
        "Concat",
        "DepthToSpace",
        "Equal",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "MaxPool",
        "Neg",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Size",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)


def to_float_type(model: onnx.ModelProto, float_type: FloatType, *, keep_io_float32: bool = True) -> onnx.ModelProto:
    """A strongly typed copy of ``model``.

    Args:
        model: an FP32 graph, plain, fused or with Q/DQ pairs. A graph that is 16-bit already is brought to the same
            rules.
        float_type: ``"float16"`` or ``"bfloat16"``. FP16 needs opset 19 where the graph holds Q/DQ pairs, BF16 opset
            22: a lower opset is raised.
        keep_io_float32: keep the network's inputs and outputs FLOAT, with a Cast at the border; otherwise they change
            too.

    Raises:
        InputError: ``float_type`` is neither of the two; BF16 would round the scales of Q/DQ pairs; constants are out
            of its range (all are named, with their largest magnitude); the graph holds control flow or tensors of
            unknown type.
    """
    if float_type not in _KINDS:
        raise InputError("EF101", f"float type {float_type!r}: use one of {', '.join(_KINDS)}")
    quantized = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    if float_type == "bfloat16" and quantized:
        _check_scales(model)
    if float_type == "bfloat16" or quantized:
        model = raise_opset(model, _MINIMUM_OPSET[float_type])
    return _Typer(model, _KINDS[float_type], keep_io_float32).run()


def _check_scales(model: onnx.ModelProto) -> None:
    """Refuse scales that BF16 does not hold: rounded, they would no longer be those that the values were made with."""
    read = {n.input[1] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    rounded = []
    for tensor in model.graph.initializer:
        if tensor.name in read and tensor.data_type == TensorProto.FLOAT:
            scales = numpy_helper.to_array(tensor)
            # BF16 is the upper half of FP32.
            if (np.ascontiguousarray(scales).view(np.uint32) & 0xFFFF).any():
                rounded.append(tensor.name)
    if rounded:
        raise InputError(
            "EF548",
            f"BF16 would round the scales of {len(rounded)} Q/DQ pairs, first {rounded[0]!r}: quantize for it "
            "(scale_bits=8; edgeformer quantize --float-type bfloat16), or take FP16",
        )


class _Typer:
    """One pass over the nodes in order, writing each with the Casts it needs."""

    def __init__(self, model: onnx.ModelProto, low: int, keep_io_float32: bool) -> None:
        self._index = GraphIndex(model)
        self._model = model
        self._low = low
        self._suffix = helper.tensor_dtype_to_string(low).removeprefix("TensorProto.").lower()
        self._io = TensorProto.FLOAT if keep_io_float32 else low
        self._float32 = float32_nodes(self._index) | mask_nodes(self._index, _largest(low))
        self._static = _static_tensors(self._index)
        self._opset = model_opset(model)
        self._name = unique_names(model)
        self._nodes: list[onnx.NodeProto] = []
        self._types: dict[str, int] = {}  # float tensor -> its type in the new graph
        self._island: set[str] = set()  # FP32 tensors behind an author's Cast to FLOAT
        self._versions: dict[tuple[str, int], str] = {}  # (tensor, type) -> the name it has in that type
        self._converted: dict[str, TensorProto] = {}  # constants in a new type, by name
        self._out_of_range: dict[str, float] = {}
        self._flushed = 0

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        for value in fed_inputs(graph):
            if self._index.is_float(value.name):
                self._types[value.name] = self._io
        for node in graph.node:
            self._convert(node)
        self._cast_outputs()
        if self._out_of_range:
            self._raise_out_of_range()
        if self._flushed:
            _logger.info("%d nonzero weights become zero in %s", self._flushed, self._suffix)
        return self._assemble()

    def _convert(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in self._index.constants:
            # A Constant node: whoever reads it asks for the type it needs, as with an initializer.
            self._nodes.append(copy)
            return
        float_inputs = [i for i, name in enumerate(node.input) if self._index.is_float(name)]
        float_outputs = [name for name in node.output if name and self._index.is_float(name)]
        if self._untouched(node, float_inputs):
            # Whatever its float inputs have become, such a node reads them as they were.
            for i in float_inputs:
                copy.input[i] = self._use(node.input[i], self._index.element_type(node.input[i]))
            kinds = {name: self._index.element_type(name) for name in float_outputs}
        else:
            kind = self._kind_of(node, float_inputs)
            for i in float_inputs:
                copy.input[i] = self._use(node.input[i], self._input_kind(node, i, kind))
            positions = {name: i for i, name in enumerate(node.output)}
            kinds = {name: self._output_kind(copy, positions[name], kind) for name in float_outputs}
            self._adapt(copy)
        self._types.update(kinds)
        if float_outputs and self._in_island(node):
            self._island.update(float_outputs)
        self._nodes.append(copy)

    def _untouched(self, node: onnx.NodeProto, float_inputs: list[int]) -> bool:
        if bra.is_op(node) or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return False
        foreign = node.domain not in STANDARD_DOMAINS
        return foreign or not float_inputs or attribute(node, "dtype") is not None or node.output[0] in self._static

    def _kind_of(self, node: onnx.NodeProto, float_inputs: list[int]) -> int:
        """The float type that a node computes in."""
        if node.op_type == "Cast":
            return self._types.get(node.input[0], self._index.element_type(node.input[0]))
        if self._in_island(node) or (node.output[0] in self._float32 and not bra.is_op(node)):
            return int(TensorProto.FLOAT)
        if node.op_type in _FOLLOWING_OPS:
            kinds = {self._types[node.input[i]] for i in float_inputs if node.input[i] in self._types}
            if len(kinds) == 1:
                return kinds.pop()
        return self._low

    def _in_island(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Cast":
            wanted, given = attribute(node, "to"), self._index.element_type(node.input[0])
            upcast = wanted == TensorProto.FLOAT and given in FLOAT_TYPES and given != TensorProto.FLOAT
            return upcast or (wanted == TensorProto.FLOAT and node.input[0] in self._island)
        return any(name in self._island for name in node.input)

    def _input_kind(self, node: onnx.NodeProto, position: int, kind: int) -> int:
        """``kind``, or FLOAT where the operator's definition takes no such input there (the scales of Resize)."""
        if bra.is_op(node):
            # LePE's weight and bias are of the output's type.
            return kind if position == 0 else self._output_kind(node, 0, kind)
        if node.op_type == "Resize" and position > 0:
            return int(TensorProto.FLOAT)
        return self._allowed(onnx.defs.get_schema(node.op_type, self._opset, "").inputs, position, kind)

    def _allowed(self, formals: Sequence[onnx.defs.OpSchema.FormalParameter], position: int, kind: int) -> int:
        """``kind``, or FLOAT where the operator's definition has neither."""
        types = formals[min(position, len(formals) - 1)].types
        return kind if f"tensor({self._suffix})" in types else int(TensorProto.FLOAT)

    def _output_kind(self, copy: onnx.NodeProto, position: int, kind: int) -> int:
        if copy.op_type == "Cast":
            wanted = int(attribute(copy, "to"))
            return wanted if wanted == TensorProto.FLOAT else self._low
        if bra.is_op(copy):
            declared = attribute(copy, "output_type")
            # The op's INT8 form gives FLOAT or FLOAT16 and no BFLOAT16.
            if declared is not None:
                return self._low if self._low == TensorProto.FLOAT16 else int(declared)
            return kind
        return self._allowed(onnx.defs.get_schema(copy.op_type, self._opset, "").outputs, position, kind)

    def _adapt(self, copy: onnx.NodeProto) -> None:
        """Set the attributes that name a type."""
        for item in copy.attribute:
            if copy.op_type == "Cast" and item.name == "to" and item.i in FLOAT_TYPES:
                item.i = item.i if item.i == TensorProto.FLOAT else self._low
            elif copy.op_type == "LayerNormalization" and item.name == "stash_type":
                item.i = TensorProto.FLOAT
            elif (copy.op_type == "DequantizeLinear" and item.name == "output_dtype") or (
                bra.is_op(copy) and item.name == "output_type" and self._low == TensorProto.FLOAT16
            ):
                item.i = self._low

    def _use(self, name: str, kind: int) -> str:
        """The name under which tensor ``name`` is read in type ``kind``; the Cast or constant it takes is made here."""
        have = self._types.get(name, self._index.element_type(name))
        if have == kind:
            return name
        if (name, kind) not in self._versions:
            version = self._name(f"{name}_{helper.tensor_dtype_to_string(kind).removeprefix('TensorProto.').lower()}")
            constant = self._index.array(name)
            if constant is not None:
                self._converted[version] = self._constant(constant, name, version, kind)
            else:
                self._nodes.append(
                    helper.make_node("Cast", [name], [version], name=self._name(f"{version}_cast"), to=kind)
                )
                self._types[version] = kind
            self._versions[name, kind] = version
        return self._versions[name, kind]

    def _constant(self, array: npt.NDArray[Any], name: str, version: str, kind: int) -> TensorProto:
        wide = array.astype(np.float32)
        limit = _largest(kind)
        magnitudes = np.abs(wide[np.isfinite(wide)])
        if magnitudes.size and magnitudes.max() > limit:
            self._out_of_range[name] = float(magnitudes.max())
            wide = np.clip(wide, -limit, limit)
        with np.errstate(over="ignore", under="ignore"):
            narrow = wide.astype(_ARRAY_TYPES[kind])
        self._flushed += int(np.count_nonzero((narrow == 0) & (wide != 0)))
        return numpy_helper.from_array(narrow, version)

    def _cast_outputs(self) -> None:
        """Give every float output of the network its type, under its own name."""
        for value in self._model.graph.output:
            have = self._types.get(value.name, self._index.element_type(value.name))
            if have not in FLOAT_TYPES or have == self._io:
                continue
            inner = self._name(f"{value.name}_inner")
            for node in self._nodes:
                node.input[:] = [inner if name == value.name else name for name in node.input]
                node.output[:] = [inner if name == value.name else name for name in node.output]
            self._types[inner] = self._types.pop(value.name, have)
            cast = helper.make_node("Cast", [inner], [value.name], name=self._name(f"{value.name}_cast"), to=self._io)
            self._nodes.append(cast)
            self._types[value.name] = self._io

    def _raise_out_of_range(self) -> None:
        limit = _largest(self._low)
        worst = sorted(self._out_of_range.items(), key=lambda item: -item[1])
        raise InputError(
            "EF307",
            f"{len(worst)} constants are out of the range of {self._suffix} (largest magnitude {limit:g}): "
            + ", ".join(f"{name!r} reaches {value:g}" for name, value in worst)
            + ". Use bfloat16 or FP32, or retrain or rescale these weights.",
        )

    def _assemble(self) -> onnx.ModelProto:
        self._restore_names()
        result = with_nodes(self._model, self._nodes, self._converted.values())
        graph = result.graph
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in FLOAT_TYPES and value.name in self._types:
                value.type.tensor_type.elem_type = self._types[value.name]
        self._declare(graph)
        return result

    def _restore_names(self) -> None:
        """Give a converted constant its own name back where nothing reads the old one any more."""
        read = {name for node in self._nodes for name in node.input}
        read.update(value.name for value in self._model.graph.output)
        own = {
            version: name
            for (name, _), version in self._versions.items()
            if version in self._converted and name not in read and name not in self._types
        }
        for node in self._nodes:
            node.input[:] = [own.get(name, name) for name in node.input]
        # A Constant node that nothing reads would still hold the name.
        self._nodes = [node for node in self._nodes if node.op_type != "Constant" or node.output[0] not in own.values()]
        for version, name in own.items():
            tensor = self._converted.pop(version)
            tensor.name = name
            self._converted[name] = tensor

    def _declare(self, graph: onnx.GraphProto) -> None:
        """Write the type of every float tensor into ``value_info``, with the shape that is known."""
        ends = {value.name for value in (*graph.input, *graph.output)}
        infos = [value for value in graph.value_info if value.name not in self._types]
        made = [name for node in graph.node for name in node.output if name in self._types and name not in ends]
        for name in made:
            known = self._index.value_info(name)
            info = helper.make_tensor_value_info(name, self._types[name], None)
            if known is not None and known.type.tensor_type.HasField("shape"):
                info.type.tensor_type.shape.CopyFrom(known.type.tensor_type.shape)
            infos.append(info)
        del graph.value_info[:]
        graph.value_info.extend(infos)


def _largest(kind: int) -> float:
    """The largest finite magnitude of a float type."""
    # ml_dtypes' finfo covers NumPy's own types too; it has no annotations.
    return float(ml_dtypes.finfo(_ARRAY_TYPES[kind]).max)  # type: ignore[no-untyped-call]


def _static_tensors(index: GraphIndex) -> set[str]:
    """Tensors computed from constants and shapes alone; not the INT8 weights behind a DequantizeLinear."""
    static = set(index.constants)
    for node in index.model.graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") or bra.is_op(node):
            continue
        if node.op_type in ("Shape", "Size") or all(name in static for name in node.input if name):
            static.update(node.output)
    return static
