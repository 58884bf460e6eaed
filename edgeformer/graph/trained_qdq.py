"""Taking Q/DQ pairs out of a graph that was trained with them, so that they can be put back behind the fuser.

Fusing adds numbers up in another order, and where a rounding follows, the last bit of a sum decides between two steps:
graphs with Q/DQ cannot be proven equal as float graphs can. So a trained graph is taken apart (`without_qdq`), fused in
floating point, and gets its pairs again (`with_trained_rounding`): the same layers, scales and INT8 weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.editing import unique_names, with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute, is_standard, label, scalar
from edgeformer.graph.qdq import QMAX, LayerSite, QuantizedWeight, dequantize, insert_qdq, layer_site

__all__ = [
    "TRAINED_PROPERTY",
    "TrainedRounding",
    "is_trained",
    "mark_trained",
    "with_trained_rounding",
    "without_qdq",
]

# Metadata property of a graph whose Q/DQ pairs come out of training.
TRAINED_PROPERTY = "edgeformer.trained_rounding"


@dataclass(frozen=True)
class TrainedRounding:
    """What a graph's Q/DQ pairs hold.

    Attributes:
        amax: layer output -> the magnitude of what the layer reads that becomes 127.
        weights: layer output -> its INT8 weight.
    """

    amax: Mapping[str, float]
    weights: Mapping[str, QuantizedWeight]

    def sha256(self) -> str:
        """Hash of all of it, as lower-case hex."""
        digest = hashlib.sha256()
        for output, weight in self.weights.items():
            digest.update(f"{output}\0{self.amax[output]!r}\0".encode())
            digest.update(weight.values.tobytes() + weight.scales.tobytes())
        return digest.hexdigest()


def mark_trained(model: onnx.ModelProto) -> None:
    """Say in the metadata of ``model``, in place, that its pairs come out of training."""
    model.metadata_props.add(key=TRAINED_PROPERTY, value="1")


def is_trained(model: onnx.ModelProto) -> bool:
    """Whether the graph's Q/DQ pairs are those of a fake-quantized model."""
    return any(entry.key == TRAINED_PROPERTY for entry in model.metadata_props)


def without_qdq(model: onnx.ModelProto) -> tuple[onnx.ModelProto, TrainedRounding]:
    """The graph in floating point, its weights those that the INT8 ones stand for, and what its pairs held.

    Args:
        model: as `insert_qdq` wrote it; not modified.

    Raises:
        InputError: it holds pairs that `insert_qdq` does not write.
    """
    index = GraphIndex(model)
    name = unique_names(model)
    sources: dict[str, tuple[str, float]] = {}  # a dequantized activation -> the float one and its amax
    restored: dict[str, tuple[QuantizedWeight, int]] = {}  # a dequantized weight -> the INT8 one and its axis
    for node in model.graph.node:
        if not is_standard(node, "DequantizeLinear"):
            continue
        quantizer = index.producer.get(node.input[0])
        if quantizer is not None and is_standard(quantizer, "QuantizeLinear"):
            step = scalar(index.array(node.input[1]))
            if step is None or list(quantizer.input[1:]) != list(node.input[1:]):
                raise _foreign(node)
            sources[node.output[0]] = (quantizer.input[0], step * QMAX)
            continue
        values, scales = index.array(node.input[0]), index.array(node.input[1])
        if values is None or scales is None or values.dtype != np.int8 or scales.ndim != 1:
            raise _foreign(node)
        restored[node.output[0]] = (QuantizedWeight(values, scales), attribute(node, "axis", 1))
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    amax: dict[str, float] = {}
    weights: dict[str, QuantizedWeight] = {}
    for node in model.graph.node:
        if is_standard(node, "QuantizeLinear", "DequantizeLinear"):
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, tensor in enumerate(node.input):
            if tensor in sources:
                copy.input[position], amax[node.output[0]] = sources[tensor]
            elif tensor in restored:
                weight, axis = restored[tensor]
                copy.input[position] = name(f"{node.output[0]}_weight")
                constants.append(numpy_helper.from_array(dequantize(weight, axis), copy.input[position]))
                weights[node.output[0]] = weight
        if (node.output[0] in amax) != (node.output[0] in weights):
            raise _foreign(node)
        nodes.append(copy)
    result = with_nodes(model, nodes, constants)
    kept = [entry for entry in result.metadata_props if entry.key != TRAINED_PROPERTY]
    del result.metadata_props[:]
    result.metadata_props.extend(kept)
    return result, TrainedRounding(amax, weights)


def with_trained_rounding(
    model: onnx.ModelProto, rounding: TrainedRounding
) -> tuple[onnx.ModelProto, tuple[LayerSite, ...], dict[str, float]]:
    """The graph with its pairs again, the layers that have them, and their activations' ranges.

    Args:
        model: what `without_qdq` gave, fused since or not.
        rounding: the same.

    Raises:
        InputError: a layer is gone, or has another weight.
    """
    index = GraphIndex(model)
    sites = []
    ranges: dict[str, float] = {}
    missing = []
    for output, weight in rounding.weights.items():
        node = index.producer.get(output)
        site = None if node is None else layer_site(index, node)
        own = index.array(site.weight) if isinstance(site, LayerSite) else None
        if not isinstance(site, LayerSite) or own is None or not np.array_equal(own, dequantize(weight, site.axis)):
            missing.append(output)
            continue
        sites.append(site)
        ranges[site.activation] = rounding.amax[output]
    if missing:
        raise InputError(
            "EF561",
            f"fusing rewrote {len(missing)} layers whose rounding was trained, such as the one that makes "
            f"{missing[0]!r}: leave them in floating point while training (an override of the recipe)",
        )
    return insert_qdq(model, sites, ranges, weights=rounding.weights, index=index), tuple(sites), ranges


def _foreign(node: onnx.NodeProto) -> InputError:
    return InputError(
        "EF561",
        f"{label(node)} is not as fake_quantize's export writes Q/DQ pairs: one scale an activation, and an INT8 "
        "weight with a scale for each output channel. Export the fake-quantized model again",
    )
