"""Tensors in place of sequences of tensors, which exporters write where they do not optimize (``optimize=False``)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.editing import UniqueNames, unique_names, with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute, describe, is_standard, scalar

__all__ = ["SEQUENCE_OPS", "without_sequences"]

SEQUENCE_OPS = (
    "ConcatFromSequence",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SplitToSequence",
)
# Pieces of one split: more than any model has.
_MOST_PIECES = 4096


def without_sequences(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with Split, Concat and the tensors themselves in place of sequences; itself where it has none.

    Args:
        model: a model whose constants are folded: positions in a sequence and sizes of a split are constants in it.

    Raises:
        InputError: a position or a size is not constant, is out of range, or a sequence is an output of the model.
    """
    if not any(is_standard(node, *SEQUENCE_OPS) for node in model.graph.node):
        return model
    return _Lowering(model).run()


class _Lowering:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._index = GraphIndex(model)
        self._name: UniqueNames = unique_names(model)
        self._sequences: dict[str, list[str]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def run(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            if is_standard(node, *SEQUENCE_OPS):
                self._lower(node)
            elif is_standard(node, "Identity") and node.input[0] in self._sequences:
                self._sequences[node.output[0]] = self._sequences[node.input[0]]
            elif any(name in self._sequences for name in node.input):
                raise _refused(node, "it reads a sequence of tensors")
            else:
                self._nodes.append(node)
        held = [value.name for value in self._model.graph.output if value.name in self._sequences]
        if held:
            raise InputError("EF345", f"the output {held[0]!r} is a sequence of tensors: export tensors as outputs")
        return with_nodes(self._model, self._nodes, self._constants)

    def _lower(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        if node.op_type == "SequenceConstruct":
            self._sequences[output] = list(node.input)
        elif node.op_type == "SequenceEmpty":
            self._sequences[output] = []
        elif node.op_type == "SplitToSequence":
            self._sequences[output] = self._split(node)
        else:
            tensors = self._sequences.get(node.input[0])
            if tensors is None:
                raise _refused(node, f"its sequence {node.input[0]!r} is not made in the graph")
            self._read(node, list(tensors))

    def _read(self, node: onnx.NodeProto, tensors: list[str]) -> None:
        output = node.output[0]
        if node.op_type == "SequenceLength":
            self._constant(output, len(tensors))
        elif node.op_type == "SequenceAt":
            source = tensors[self._position(node, 1, len(tensors))]
            self._nodes.append(helper.make_node("Identity", [source], [output], name=self._name(f"{output}_at")))
        elif node.op_type == "SequenceInsert":
            where = self._position(node, 2, len(tensors) + 1) if len(node.input) > 2 and node.input[2] else len(tensors)
            self._sequences[output] = [*tensors[:where], node.input[1], *tensors[where:]]
        elif node.op_type == "SequenceErase":
            last = len(tensors) - 1
            where = self._position(node, 1, len(tensors)) if len(node.input) > 1 and node.input[1] else last
            self._sequences[output] = [*tensors[:where], *tensors[where + 1 :]]
        else:
            self._concat(node, tensors)

    def _concat(self, node: onnx.NodeProto, tensors: list[str]) -> None:
        axis = int(attribute(node, "axis"))
        if attribute(node, "new_axis", 0):
            axes = self._constant(self._name(f"{node.output[0]}_axes"), [axis])
            tensors = [
                self._one(helper.make_node("Unsqueeze", [name, axes], [f"{name}_unsqueezed"])) for name in tensors
            ]
        self._nodes.append(
            helper.make_node(
                "Concat", tensors, [node.output[0]], name=self._name(f"{node.output[0]}_concat"), axis=axis
            )
        )

    def _split(self, node: onnx.NodeProto) -> list[str]:
        source, axis = node.input[0], int(attribute(node, "axis", 0))
        shape = self._index.shape(source)
        whole = None if shape is None else shape[axis]
        squeezed = False
        if len(node.input) > 1 and node.input[1]:
            given = self._index.array(node.input[1])
            if given is None:
                raise _refused(node, "the sizes of its pieces are not constant")
            one = None if given.ndim else int(scalar(given) or 0)
            if one is None:
                sizes = [int(size) for size in given]
            elif whole is None or one < 1:
                raise _refused(node, f"axis {axis} has no fixed size to cut into pieces of {one}")
            else:
                sizes = [min(one, whole - start) for start in range(0, min(whole, one * (_MOST_PIECES + 1)), one)]
        elif whole is None:
            raise _refused(node, f"axis {axis} has no fixed size")
        else:
            sizes, squeezed = [1] * min(whole, _MOST_PIECES + 1), not attribute(node, "keepdims", 1)
        if len(sizes) > _MOST_PIECES:
            raise _refused(node, f"it makes more than {_MOST_PIECES} pieces")
        pieces = [self._name(f"{node.output[0]}_{number}") for number in range(len(sizes))]
        lengths = self._constant(self._name(f"{node.output[0]}_sizes"), sizes)
        self._nodes.append(
            helper.make_node("Split", [source, lengths], pieces, name=self._name(f"{node.output[0]}_split"), axis=axis)
        )
        if squeezed:
            axes = self._constant(self._name(f"{node.output[0]}_axes"), [axis])
            return [self._one(helper.make_node("Squeeze", [piece, axes], [f"{piece}_squeezed"])) for piece in pieces]
        return pieces

    def _one(self, node: onnx.NodeProto) -> str:
        """Add a node with one output, under free names."""
        node.output[0] = self._name(node.output[0])
        node.name = self._name(f"{node.output[0]}_node")
        self._nodes.append(node)
        return str(node.output[0])

    def _constant(self, name: str, value: int | list[int]) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
        return name

    def _position(self, node: onnx.NodeProto, slot: int, length: int) -> int:
        value = scalar(self._index.array(node.input[slot]))
        if value is None:
            raise _refused(node, f"its position {node.input[slot]!r} is not constant")
        position = int(value) + (length if value < 0 else 0)
        if not 0 <= position < length:
            raise _refused(node, f"position {int(value)} is out of range: its sequence has {length} tensors")
        return position


def _refused(node: onnx.NodeProto, why: str) -> InputError:
    return InputError(
        "EF345",
        f"{describe(node)} works on a sequence of tensors and cannot be written without it: {why}. Export with "
        "optimize=True",
    )
