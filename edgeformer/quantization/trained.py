"""Quantizing a graph as it was trained: nothing is calibrated, and nothing is decided."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.trained_qdq import TrainedRounding, with_trained_rounding
from edgeformer.quantization.policy import decide
from edgeformer.records.quantization import ActivationRecord, LayerRecord

__all__ = ["TrainedResult", "apply_trained"]


@dataclass(frozen=True)
class TrainedResult:
    """A graph with the rounding that it was trained with.

    Attributes:
        model: FP32 typed, with Q/DQ pairs.
        layers: for every layer, what became of it and why.
        activations: what the INT8 layers read, in graph order; nobody counted their values.
    """

    model: onnx.ModelProto
    layers: tuple[LayerRecord, ...]
    activations: tuple[ActivationRecord, ...]


def apply_trained(model: onnx.ModelProto, rounding: TrainedRounding) -> TrainedResult:
    """Give ``model`` the Q/DQ pairs that it was trained with.

    Args:
        model: the float graph that the pairs were taken from, fused since or not.
        rounding: what the pairs held.

    Raises:
        InputError: layers of the pairs are gone.
    """
    quantized, sites, ranges = with_trained_rounding(model, rounding)
    decisions = decide(model, index=GraphIndex(model))
    trained = {site.output for site in sites}
    layers = []
    for item in decisions:
        because = item.because
        if item.output in trained:
            because = "it was trained with INT8 rounding"
        elif item.quantized:
            because = "it was trained in floating point"
        layers.append(LayerRecord(node=item.node, op=item.op_type, int8=item.output in trained, because=because))
    names = {item.output: item.node for item in decisions}
    readers: dict[str, list[str]] = {}
    for site in sites:
        readers.setdefault(site.activation, []).append(names[site.output])
    activations = tuple(
        ActivationRecord(tensor=tensor, layers=tuple(read), amax=ranges[tensor]) for tensor, read in readers.items()
    )
    return TrainedResult(quantized, tuple(layers), activations)
