"""Linears of a feature map as 1 x 1 convolutions.

A Linear over the channels of an image ``[N, H, W, C]`` is a 1 x 1 convolution of ``[N, C, H, W]``: the same products.
What differs is what TensorRT makes of it. At batch sizes that are free (``1:8:32``) TensorRT-RTX 1.7 runs a MatMul, its
bias and the GELU or residual behind it as two or three kernels, with a whole feature map between them, and a
convolution with all of that as one; `docs/activation_memory.md` has the figures. Nothing is transposed in memory:
TensorRT's convolutions want channels last, which is how the image lies already.

One pass over the nodes writes the new graph. Tensors that come out of a convolution live channels first; elementwise
operators and residual sums take them as they are, and whatever wants channels last reads a Transpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.editing import unique_names, with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute, is_standard

__all__ = ["linears_as_convolutions"]

_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
# Of one tensor, of two of one shape, or of one and constants of one value (a GELU that was written out).
_ELEMENTWISE = frozenset(
    {"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Neg", "Relu", "Sigmoid", "Sub", "Tanh"}
)


def linears_as_convolutions(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """``model`` with 1 x 1 convolutions for the Linears of its feature maps, and how many there are; itself for none.

    A Linear is a MatMul of a tensor of rank 4 with a constant matrix, and the bias behind it. Those with Q/DQ pairs
    stay: their weight comes out of a DequantizeLinear and is not a constant. What the graph computes stays the same;
    weights are copied, not edited.

    Args:
        model: a graph in topological order.

    Raises:
        InputError: the graph holds control flow.
    """
    return _Rewriter(model).run()


class _Rewriter:
    """One pass over the nodes in order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._index = GraphIndex(model)
        self._name = unique_names(model)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}  # a Linear's weight -> the convolution's
        self._first: dict[str, str] = {}  # a tensor that is channels last -> the same channels first
        self._made_first: set[str] = set()  # those of them that were made channels first
        self._aliases: dict[str, str] = {}  # a tensor that nobody makes any more -> the one that is equal
        self._biases: set[str] = set()  # sums that became part of a convolution
        self._count = 0

    def run(self) -> tuple[onnx.ModelProto, int]:
        """The new graph; the given one where it has no such Linear."""
        for node in self._model.graph.node:
            if node.output[0] not in self._biases:
                self._write(node)
        if not self._count:
            return self._model, 0
        return with_nodes(self._model, self._nodes, self._weights.values()), self._count

    def _write(self, node: onnx.NodeProto) -> None:
        if self._is_linear(node):
            self._write_convolution(node)
        elif node.op_type == "Transpose" and attribute(node, "perm") == _TO_NHWC:
            self._append(node)
            self._first[node.output[0]] = self._read(node.input[0])
            self._made_first.add(node.output[0])
        elif node.op_type == "Transpose" and attribute(node, "perm") == _TO_NCHW:
            self._write_channels_first(node)
        elif self._takes_channels_first(node):
            self._write_elementwise(node)
        else:
            self._append(node)

    def _append(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._read(name) for name in node.input]
        self._nodes.append(copy)

    def _read(self, name: str) -> str:
        return self._aliases.get(name, name)

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "MatMul" or node.input[1] not in self._index.constants:
            return False
        weight, shape = self._index.shape(node.input[1]), self._index.shape(node.input[0])
        return weight is not None and len(weight) == 2 and shape is not None and len(shape) == 4

    def _write_convolution(self, node: onnx.NodeProto) -> None:
        weight = node.input[1]
        if weight not in self._weights:
            array = self._index.array(weight)
            assert array is not None  # _is_linear saw it
            kernels = np.ascontiguousarray(array.T[:, :, None, None])
            self._weights[weight] = numpy_helper.from_array(kernels, self._name(f"{weight}/pointwise"))
        inputs = [self._channels_first(node.input[0]), self._weights[weight].name]
        output, bias = node.output[0], self._bias(node)
        if bias is not None:
            output = self._index.consumers[output][0].output[0]
            self._biases.add(output)
            inputs.append(bias)
        convolution = helper.make_node(
            "Conv", inputs, [self._name(f"{output}/channels_first")], name=node.name, kernel_shape=[1, 1]
        )
        convolution.metadata_props.extend(node.metadata_props)
        self._count += 1
        self._finish(convolution, output)

    def _bias(self, linear: onnx.NodeProto) -> str | None:
        """What is added to a Linear's product and nothing else reads, where it is a constant ``[channels]``."""
        product = linear.output[0]
        add = self._index.sole_consumer(product)
        if add is None or add.op_type != "Add":
            return None
        other = add.input[1] if add.input[0] == product else add.input[0]
        value, weight = self._index.shape(other), self._index.shape(linear.input[1])
        fits = value is not None and weight is not None and value == weight[1:]
        return other if fits and other in self._index.constants else None

    def _write_channels_first(self, node: onnx.NodeProto) -> None:
        """A Transpose to channels first: nothing where the tensor is there channels first already."""
        known = self._first.get(node.input[0])
        if known is not None and node.output[0] not in self._index.outputs:
            self._aliases[node.output[0]] = known
            return
        self._append(node)
        self._first.setdefault(node.input[0], node.output[0])

    def _takes_channels_first(self, node: onnx.NodeProto) -> bool:
        """Whether an elementwise operator should compute channels first: where its operands lie so.

        In a sum of two it is enough if one does. The other is the residual or what is added to it, and mostly comes
        from a convolution, too.
        """
        if not is_standard(node, *_ELEMENTWISE):
            return False
        data = list(dict.fromkeys(self._index.data_inputs(node)))
        constants = [self._index.array(name) for name in node.input if name and name not in data]
        if any(value is None or value.size != 1 for value in constants) or not self._of_one_shape(data):
            return False
        lying = sum(name in self._made_first for name in data)
        return lying == len(data) or (lying > 0 and node.op_type == "Add")

    def _of_one_shape(self, names: Sequence[str]) -> bool:
        """Whether these are images of which none is broadcast, as far as shapes are known."""
        shapes = [self._index.shape(name) for name in names]
        first = shapes[0] if shapes else None
        if first is None or len(first) != 4:
            return False
        return len(shapes) == 1 or (all(shape == first for shape in shapes) and 1 not in first[1:])

    def _write_elementwise(self, node: onnx.NodeProto) -> None:
        data = set(self._index.data_inputs(node))
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        moved.input[:] = [self._channels_first(name) if name in data else self._read(name) for name in node.input]
        moved.output[0] = self._name(f"{node.output[0]}/channels_first")
        self._finish(moved, node.output[0])

    def _finish(self, node: onnx.NodeProto, output: str) -> None:
        """Write a node that makes ``output`` channels first, and the Transpose for those who read it channels last."""
        self._nodes.append(node)
        self._nodes.append(self._transpose(node.output[0], output, _TO_NHWC))
        self._first[output] = node.output[0]
        self._made_first.add(output)

    def _channels_first(self, name: str) -> str:
        """The tensor channels first; a Transpose where it is not there yet."""
        if name not in self._first:
            made = self._name(f"{name}/channels_first")
            self._nodes.append(self._transpose(self._read(name), made, _TO_NCHW))
            self._first[name] = made
        return self._first[name]

    def _transpose(self, source: str, target: str, perm: list[int]) -> onnx.NodeProto:
        return helper.make_node("Transpose", [source], [target], name=self._name(f"{target}/transpose"), perm=perm)
