"""A read-only index over one ONNX graph: who makes a tensor, who reads it, of what type it is, what constant it holds.

The passes that change types, insert Q/DQ or fold weights ask the same few questions; they are answered here once.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.protos import FLOAT_TYPES, attribute, describe, is_standard, subgraphs
from edgeformer.graph.shape_inference import infer_values, skeleton

__all__ = ["GraphIndex"]

# Bytes of an array up to which it is kept once it was read.
_LARGEST_KEPT = 65536
# Nodes through which a constant stays readable as a constant.
_CONSTANT_OPS = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


class GraphIndex:
    """Producers, consumers, element types, shapes and constants of ``model.graph``.

    The index refers to the model's own nodes and is out of date as soon as the graph changes.

    Attributes:
        model: the indexed model.
        producer: tensor name -> the node that makes it.
        consumers: tensor name -> the nodes that read it, in graph order, one entry a node.
        outputs: names of the graph's outputs.
        constants: names of initializers and outputs of ``Constant`` nodes.

    Raises:
        InputError: the graph holds control flow (a node with a sub-graph), or an element type cannot be inferred.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        nested = [describe(node) for node in graph.node if list(subgraphs(node))]
        if nested:
            raise InputError(
                "EF305",
                f"the graph holds control flow, which cannot be typed or quantized: {', '.join(nested)}. "
                "Export the model without data-dependent branches.",
            )
        self._find_nodes(graph)
        self.outputs = {value.name for value in graph.output}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._constant_nodes = {node.output[0]: node for node in graph.node if is_standard(node, "Constant")}
        self.constants = set(self._tensors) | set(self._constant_nodes)
        self._arrays: dict[str, npt.NDArray[Any] | None] = {}
        # Inferred when it is asked for, but of the graph as it is now.
        self._skeleton = skeleton(model)

    def _find_nodes(self, graph: onnx.GraphProto) -> None:
        self.producer = {name: node for node in graph.node for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                if name:
                    self.consumers.setdefault(name, []).append(node)

    def of_draft(self, draft: onnx.ModelProto) -> GraphIndex:
        """The index of a copy of the graph whose nodes are then edited; types, shapes and constants stay what they are.

        Args:
            draft: `edgeformer.graph.editing.draft` of the model, still as it was made.
        """
        result = copy.copy(self)
        result.model = draft
        result._find_nodes(draft.graph)
        return result

    @cached_property
    def _values(self) -> dict[str, ValueInfoProto]:
        values = infer_values(self._skeleton, data_prop=True)
        return {name: value for name, value in values.items() if name not in self._tensors}

    def element_type(self, name: str) -> int:
        """The ``TensorProto.DataType`` of a tensor.

        Raises:
            InputError: ONNX shape inference does not know it.
        """
        if name in self._tensors:
            return int(self._tensors[name].data_type)
        value = self._values.get(name)
        kind = value.type.tensor_type.elem_type if value is not None else TensorProto.UNDEFINED
        if kind == TensorProto.UNDEFINED:
            node = self.producer.get(name)
            raise InputError(
                "EF306",
                f"the type of tensor {name!r} cannot be inferred"
                + (f" (it comes out of {describe(node)}, domain {node.domain!r})" if node is not None else "")
                + ": add the function or the value_info that defines it to the model",
            )
        return int(kind)

    def is_float(self, name: str) -> bool:
        """Whether the tensor is FLOAT, FLOAT16 or BFLOAT16."""
        return bool(name) and self.element_type(name) in FLOAT_TYPES

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """The tensor's shape with None for unknown axes; None where even the rank is unknown."""
        if name in self._tensors:
            return tuple(self._tensors[name].dims)
        value = self._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)

    def value_info(self, name: str) -> ValueInfoProto | None:
        """What shape inference found out about a tensor that is not an initializer."""
        return self._values.get(name)

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """The constant a tensor holds, or None.

        Read are initializers, ``Constant`` nodes, and either of them behind Transpose, Reshape, Squeeze, Unsqueeze or
        Identity, as exporters write a transposed weight.
        """
        views: list[tuple[str, onnx.NodeProto]] = []
        source = name
        while source not in self._arrays and source not in self.constants:
            node = self._constant_view(source)
            if node is None:
                break
            views.append((source, node))
            source = node.input[0]
        found = self._arrays[source] if source in self._arrays else self._keep(source, self._stored(source))
        for view, node in reversed(views):
            found = self._keep(view, None if found is None else self._viewed(view, node, found))
        return found

    def is_constant(self, name: str) -> bool:
        """Whether `array` knows the tensor's value."""
        while name not in self.constants:
            node = self._constant_view(name)
            if node is None:
                return False
            name = node.input[0]
        return True

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The node's inputs that are not constants."""
        return [name for name in node.input if name and not self.is_constant(name)]

    def sole_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads the tensor, or None where several do or it is an output of the graph."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def _keep(self, name: str, array: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        # Weights are read anew each time, so that an index that is kept keeps no second copy of the model.
        if array is None or array.nbytes <= _LARGEST_KEPT:
            self._arrays[name] = array
        return array

    def _stored(self, name: str) -> npt.NDArray[Any] | None:
        if name in self._tensors:
            return np.asarray(numpy_helper.to_array(self._tensors[name]))
        if name in self._constant_nodes:
            return _constant_value(self._constant_nodes[name])
        return None

    def _viewed(self, name: str, node: onnx.NodeProto, source: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if node.op_type == "Identity":
            return source
        if node.op_type == "Transpose":
            return np.transpose(source, attribute(node, "perm"))
        return source.reshape([size for size in self.shape(name) or () if size is not None])

    def _constant_view(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, where that would be a constant if the node's input is."""
        node: onnx.NodeProto | None = self.producer.get(name)
        if node is None or not is_standard(node, *_CONSTANT_OPS):
            return None
        # The output shape is all that matters of Reshape, Squeeze and Unsqueeze: the elements keep their order.
        if node.op_type not in ("Identity", "Transpose"):
            shape = self.shape(name)
            return None if shape is None or None in shape else node
        return node


def _constant_value(node: onnx.NodeProto) -> npt.NDArray[Any] | None:
    for item in node.attribute:
        if item.name == "value":
            return np.asarray(numpy_helper.to_array(item.t))
        if item.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(item), dtype=np.float32)
        if item.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(item), dtype=np.int64)
    return None
