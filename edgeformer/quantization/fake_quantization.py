"""Fake quantization of layers beside the float ones, in one graph: what calibration measures errors with.

For a layer ``y = x @ W + b`` at a site, ``x' = DQ(Q(x))`` and ``W'`` (the dequantized INT8 weight) are added to the
float graph, as insert_qdq would write them; for an attention ``qkv' = DQ(Q(qkv))``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.editing import complete, draft, unique_names
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.node_order import sort_nodes
from edgeformer.graph.qdq import QMAX, AttentionSite, LayerSite, dequantize, min_max_weight, representable_scale

__all__ = ["ErrorMeans", "with_error_means", "with_switches"]


@dataclass(frozen=True)
class ErrorMeans:
    """The outputs of the model that `with_error_means` makes.

    Attributes:
        inputs: a Linear's activation -> names of the mean of each of its channels, and of the mean of what INT8 changes
            in it.
        outputs: a convolution's output -> name of the mean of what INT8 changes in each of its channels.
    """

    inputs: dict[str, tuple[str, str]]
    outputs: dict[str, str]


def with_error_means(
    model: onnx.ModelProto, sites: Sequence[LayerSite], ranges: Mapping[str, float], index: GraphIndex
) -> tuple[onnx.ModelProto, ErrorMeans]:
    """The float model with means over all positions, of what the layers read and INT8 changes, for its only outputs.

    Args:
        model: the float model, at opset 18 at least.
        sites: the layers.
        ranges: their activations' ranges.
        index: of ``model``.
    """
    writer = _Writer(model, ranges, index)
    means = ErrorMeans({}, {})
    for site in sites:
        if writer.index.producer[site.output].op_type == "Conv":
            weight, restored = writer.weights(site)
            fake = writer.twin(site, writer.rounded(site), writer.constant("weight", restored))
            # Convolutions keep their channels at axis 1.
            axes = [axis for axis in range(weight.ndim) if axis != 1]
            error = writer.op("Sub", fake, site.output)
            means.outputs[site.output] = writer.op(
                "ReduceMean", error, writer.constant("axes", np.asarray(axes)), keepdims=0
            )
        elif site.activation not in means.inputs:
            channels = (index.shape(site.weight) or ())[1 - site.axis]
            change = writer.op("Sub", writer.rounded(site), site.activation)
            means.inputs[site.activation] = (
                writer.channel_means(site.activation, channels),
                writer.channel_means(change, channels),
            )
    names = [*(name for pair in means.inputs.values() for name in pair), *means.outputs.values()]
    return writer.model(names), means


def with_switches(
    model: onnx.ModelProto,
    sites: Sequence[LayerSite],
    ranges: Mapping[str, float],
    bias_errors: Mapping[str, Sequence[float]],
    attention: Sequence[AttentionSite] = (),
    index: GraphIndex | None = None,
) -> tuple[onnx.ModelProto, list[str]]:
    """The model with a switch for each layer: 0 leaves it in float, 1 makes it INT8; and one for all attention.

    Returns:
        The model, and the names of its new inputs, a float32 scalar each: the switches in the order of ``sites``, and
        that of the ``attention``, where there is some, at the end.
    """
    writer = _Writer(model, ranges, index or GraphIndex(model))
    switches = [writer.name("int8_switch") for _ in range(len(sites) + bool(attention))]
    gates = {site.output: gate for site, gate in zip(sites, switches, strict=False)}
    places: dict[str, LayerSite | AttentionSite] = {site.output: site for site in sites}
    places |= {site.output: site for site in attention}
    # In the order of the graph, so that each layer's new nodes come right before it.
    for output in [name for node in model.graph.node for name in node.output if name in places]:
        place = places[output]
        layer = writer.index.producer[output]
        if isinstance(place, AttentionSite):
            rounded = writer.op("Sub", writer.rounded_qkv(place), place.qkv)
            layer.input[0] = writer.mixed(switches[-1], place.qkv, rounded)
            continue
        gate = gates[output]
        rounded = writer.op("Sub", writer.rounded(place), place.activation)
        weight, restored = writer.weights(place)
        error = np.asarray(bias_errors.get(output, [0.0]), dtype=np.float32)
        if layer.op_type == "Conv":
            error = error.reshape(-1, *(1,) * (weight.ndim - 2))
        layer.input[0] = writer.mixed(gate, place.activation, rounded)
        change = writer.constant("weight_change", restored - weight)
        layer.input[place.weight_input] = writer.mixed(gate, place.weight, change)
        layer.output[0] = writer.name(f"int8_{output}")
        writer.mixed(gate, layer.output[0], writer.constant("bias_change", -error), output=output)
    result = writer.model()
    result.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in switches)
    return result, switches


class _Writer:
    """Adds nodes to a draft of a graph."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, float], index: GraphIndex) -> None:
        self._model = model
        self._draft = draft(model)
        self.index = index.of_draft(self._draft)
        self.name = unique_names(model)
        self._ranges = ranges
        self._rounded: dict[str, str] = {}
        self._rows: dict[int | None, str] = {}
        self._new: list[onnx.NodeProto] = []

    def constant(self, base: str, array: npt.NDArray[Any]) -> str:
        """A new initializer."""
        name = self.name(f"int8_{base}")
        self._draft.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """The output of a new node."""
        made = output or self.name(f"int8_{op_type}")
        self._new.append(helper.make_node(op_type, list(inputs), [made], name=self.name(f"{made}_node"), **attributes))
        return made

    def rounded(self, site: LayerSite) -> str:
        """The layer's activation behind a Q/DQ pair."""
        tensor = site.activation
        if tensor not in self._rounded:
            self._rounded[tensor] = self._pair(tensor, representable_scale(self._ranges[tensor] / QMAX))
        return self._rounded[tensor]

    def rounded_qkv(self, site: AttentionSite) -> str:
        """What an attention reads behind a Q/DQ pair, with a scale each for queries, keys and values."""
        return self._pair(site.qkv, site.channel_scales(self._ranges), axis=3)

    def _pair(self, tensor: str, scales: npt.NDArray[np.float32], axis: int = 0) -> str:
        scale = self.constant("scale", scales)
        zero = self.constant("zero_point", np.zeros(scales.shape, dtype=np.int8))
        quantized = self.op("QuantizeLinear", tensor, scale, zero, axis=axis)
        return self.op("DequantizeLinear", quantized, scale, zero, axis=axis)

    def weights(self, site: LayerSite) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """The layer's weight, and what its INT8 form stands for."""
        weight = self.index.array(site.weight)
        assert weight is not None
        return weight, dequantize(min_max_weight(weight, site.axis), site.axis)

    def twin(self, site: LayerSite, activation: str, weight: str) -> str:
        """The output of a second layer like the one at ``site``, with other inputs."""
        node = onnx.NodeProto()
        node.CopyFrom(self.index.producer[site.output])
        node.input[0], node.input[site.weight_input] = activation, weight
        node.output[0] = self.name(f"int8_{site.output}")
        node.name = self.name(f"{node.output[0]}_node")
        self._new.append(node)
        return str(node.output[0])

    def mixed(self, gate: str, base: str, change: str, output: str | None = None) -> str:
        """``base + gate * change``: exactly ``base`` where the gate is 0."""
        return self.op("Add", base, self.op("Mul", gate, change), output=output)

    def channel_means(self, tensor: str, channels: int | None) -> str:
        """The mean over all positions of a tensor whose last axis holds the channels."""
        if channels not in self._rows:
            self._rows[channels] = self.constant("rows", np.asarray([-1, channels]))
        rows = self.op("Reshape", tensor, self._rows[channels])
        return self.op("ReduceMean", rows, self.constant("axes", np.asarray([0])), keepdims=0)

    def model(self, outputs: Sequence[str] = ()) -> onnx.ModelProto:
        """The graph with the new nodes in it, and with ``outputs`` for its own where some are given."""
        self._draft.graph.node.extend(self._new)
        if outputs:
            del self._draft.graph.output[:]
            self._draft.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
        # Side branches that end in outputs come early; a switch's change of a weight is made when its layer runs.
        sort_nodes(self._draft, early=len(self._new) if outputs else 0)
        complete(self._draft, self._model)
        return self._draft
