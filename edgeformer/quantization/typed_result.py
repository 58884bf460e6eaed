"""What quantizing to INT8 weights, INT4 weights or FP8 gives, and which layers it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite
from edgeformer.quantization.calibration import Calibration
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.recipe import Override
from edgeformer.records.quantization import ActivationRecord, LayerRecord
from edgeformer.records.terms import Precision, TypedPrecision

__all__ = ["TypedResult", "chosen_layers", "layer_record"]


@dataclass(frozen=True)
class TypedResult:
    """A model with INT8 weights, INT4 weights or FP8, and how it came about.

    Attributes:
        model: FP32 typed, with Q/DQ; `edgeformer.graph.types.to_float_type` makes it FP16, and changes no scale.
        precision: what it was quantized to.
        decisions: for every layer, what became of it and why.
        calibration: what the ranges of activations came from; None where the weights alone are quantized.
        activations: what FP8 layers read, and how it is distributed, in graph order.
        reused: whether the calibration was read from the cache.
    """

    model: onnx.ModelProto
    precision: TypedPrecision
    decisions: tuple[Decision, ...]
    calibration: Calibration | None = None
    activations: tuple[ActivationRecord, ...] = ()
    reused: bool = False


def chosen_layers(
    index: GraphIndex,
    precision: TypedPrecision,
    overrides: Sequence[Override],
    refusal: Callable[[LayerSite, Decision], str | None],
) -> tuple[tuple[Decision, ...], list[LayerSite]]:
    """A decision for every layer, and where those that are quantized stand.

    Args:
        index: of the float graph.
        precision: for the message.
        overrides: exceptions from the default policy.
        refusal: why a layer that the policy takes stays in float; None where it does not.

    Raises:
        InputError: an override does not fit the model, or nothing is left to quantize.
    """
    found, sites = [], []
    for decision in decide(index.model, overrides, index=index):
        if decision.quantized and decision.site is not None:
            reason = refusal(decision.site, decision)
            if reason is None:
                sites.append(decision.site)
            else:
                decision = replace(decision, quantized=False, because=reason)
        found.append(decision)
    if not sites:
        reasons = sorted({item.because for item in found if item.op_type in ("Conv", "Gemm", "MatMul")})
        raise InputError(
            "EF547",
            f"nothing in this model is to be quantized to {precision}: "
            + ("; ".join(reasons[:5]) or "it has no Linear and no convolution"),
        )
    return tuple(found), sites


def layer_record(decision: Decision, precision: Precision) -> LayerRecord:
    """What a report says of a layer of a model that was quantized to a precision."""
    if precision == "int8":
        return decision.record
    return decision.record.model_copy(update={"int8": False, "type": precision if decision.quantized else None})
