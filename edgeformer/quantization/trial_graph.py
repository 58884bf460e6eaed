"""The graph that a `Trial` runs: a float graph in which what quantizes each layer is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.editing import complete, draft, unique_names
from edgeformer.graph.node_order import sort_nodes
from edgeformer.graph.qdq import AttentionSite, LayerSite
from edgeformer.quantization.settings import Sites

__all__ = ["FedActivation", "FedLayer", "TrialGraph"]


@dataclass(frozen=True)
class FedLayer:
    """Names of what is fed for a layer, and of the mean of its output channels."""

    gate: str
    weight: str
    bias: str
    mean: str


@dataclass(frozen=True)
class FedActivation:
    """Names of what is fed for an activation."""

    scale: str
    offset: str
    step: str


class TrialGraph:
    """Writes the graph.

    Args:
        sites: the model's layers.
        attention: op nodes that are INT8 together.

    Attributes:
        model: the graph.
        layers: layer output -> the names of what is fed for it, and of the mean of its channels.
        activations: activation -> the names of what is fed for it.
        attention_gate: the switch of all attention; None where there is none.
        attention_steps: op node's output -> the name of its channels' scales.
        gates: all switches.
    """

    def __init__(self, sites: Sites, attention: Sequence[AttentionSite]) -> None:
        model = sites.index.model
        self.model = draft(model)
        self._index = sites.index.of_draft(self.model)
        self._sites = sites
        self._name = unique_names(model)
        self._new: list[onnx.NodeProto] = []
        self._rounded: dict[str, str] = {}
        self.layers: dict[str, FedLayer] = {}
        self.activations: dict[str, FedActivation] = {}
        self.attention_gate = self._input([]) if attention else None
        self.attention_steps: dict[str, str] = {}
        self._zero = self._constant("zero_point", np.asarray(0, dtype=np.int8))
        places = {place.output: place for place in attention}
        outputs = [name for node in model.graph.node for name in node.output]
        # In the order of the graph, so that each layer's new nodes come right before it.
        for output in outputs:
            if output in sites.of_output:
                self._layer(sites.of_output[output])
            elif output in places:
                self._attend(places[output])
        self.model.graph.node.extend(self._new)
        sort_nodes(self.model)
        complete(self.model, model)
        self.gates = [layer.gate for layer in self.layers.values()]
        self.gates += [] if self.attention_gate is None else [self.attention_gate]

    def _layer(self, site: LayerSite) -> None:
        node = self._index.producer[site.output]
        convolution = self._sites.convolution(site)
        weight = self._sites.weight(site)
        rank = weight.ndim if convolution else 1
        names = FedLayer(
            self._input([]),
            self._input(list(weight.shape)),
            self._input([None, *(1 for _ in range(rank - 2))] if convolution else [None]),
            self._name(f"mean_{site.output}"),
        )
        node.input[0] = self._mixed(names.gate, site.activation, self._activation(site))
        node.input[site.weight_input] = names.weight
        raw = self._name(f"raw_{site.output}")
        node.output[0] = raw
        self._op("Add", raw, names.bias, output=site.output)
        # The mean over all positions; convolutions keep their channels at axis 1.
        kept = 1 if convolution else len(self._sites.index.shape(site.output) or (0,)) - 1
        axes = [axis for axis in range(len(self._sites.index.shape(site.output) or (0,))) if axis != kept]
        if axes:
            self._op("ReduceMean", site.output, self._constant("axes", np.asarray(axes)), output=names.mean, keepdims=0)
        else:
            self._op("Identity", site.output, output=names.mean)
        self.model.graph.output.append(helper.make_tensor_value_info(names.mean, TensorProto.FLOAT, None))
        self.layers[site.output] = names

    def _activation(self, site: LayerSite) -> str:
        tensor = site.activation
        if tensor not in self._rounded:
            shape = [None, 1, 1] if self._sites.convolution(site) else [None]
            names = FedActivation(self._input(shape), self._input(shape), self._input([]))
            moved = self._op("Add", self._op("Mul", tensor, names.scale), names.offset)
            quantized = self._op("QuantizeLinear", moved, names.step, self._zero)
            self._rounded[tensor] = self._op("DequantizeLinear", quantized, names.step, self._zero)
            self.activations[tensor] = names
        return self._rounded[tensor]

    def _attend(self, place: AttentionSite) -> None:
        assert self.attention_gate is not None
        steps = self._input([place.value.stop])
        zero = self._constant("zero_points", np.zeros(place.value.stop, dtype=np.int8))
        quantized = self._op("QuantizeLinear", place.qkv, steps, zero, axis=3)
        rounded = self._op("DequantizeLinear", quantized, steps, zero, axis=3)
        node = self._index.producer[place.output]
        node.input[0] = self._mixed(self.attention_gate, place.qkv, rounded)
        self.attention_steps[place.output] = steps

    def _mixed(self, gate: str, tensor: str, other: str) -> str:
        """``tensor + gate * (other - tensor)``: exactly ``tensor`` where the gate is 0."""
        return self._op("Add", tensor, self._op("Mul", gate, self._op("Sub", other, tensor)))

    def _input(self, shape: Sequence[int | None]) -> str:
        name = self._name("int8_fed")
        self.model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def _constant(self, base: str, array: npt.NDArray[Any]) -> str:
        name = self._name(f"int8_{base}")
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        made = output or self._name(f"int8_{op_type}")
        self._new.append(helper.make_node(op_type, list(inputs), [made], name=self._name(f"{made}_node"), **attributes))
        return made
