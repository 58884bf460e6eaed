"""`quantize`: to the precision that is asked for. INT8 has a search of its own; the others are written down."""

from __future__ import annotations

import os
from typing import Literal, overload

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.qdq import SCALE_BITS
from edgeformer.progress import Progress
from edgeformer.quantization.fp8 import quantize_fp8
from edgeformer.quantization.quantize import QuantizeResult
from edgeformer.quantization.quantize import quantize as quantize_int8
from edgeformer.quantization.recipe import Recipe
from edgeformer.quantization.streaming import SamplesLike
from edgeformer.quantization.typed_result import TypedResult
from edgeformer.quantization.weight_only import DEFAULT_INT4_BLOCK, quantize_weights
from edgeformer.records.terms import QUANTIZED, TypedPrecision

__all__ = ["quantize"]


@overload
def quantize(
    model: onnx.ModelProto,
    samples: SamplesLike | None,
    *,
    precision: Literal["int8"] = "int8",
    recipe: Recipe | None = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    scale_bits: int = SCALE_BITS,
    int4_block: int = DEFAULT_INT4_BLOCK,
    progress: Progress | None = None,
) -> QuantizeResult: ...


@overload
def quantize(
    model: onnx.ModelProto,
    samples: SamplesLike | None = None,
    *,
    precision: TypedPrecision,
    recipe: Recipe | None = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    scale_bits: int = SCALE_BITS,
    int4_block: int = DEFAULT_INT4_BLOCK,
    progress: Progress | None = None,
) -> TypedResult: ...


def quantize(
    model: onnx.ModelProto,
    samples: SamplesLike | None = None,
    *,
    precision: Literal["int8", "int8-weights", "fp8", "int4-weights"] = "int8",
    recipe: Recipe | None = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    scale_bits: int = SCALE_BITS,
    int4_block: int = DEFAULT_INT4_BLOCK,
    progress: Progress | None = None,
) -> QuantizeResult | TypedResult:
    """Quantize ``model``.

    Args:
        model: an FP32 graph, fused or not.
        samples: calibration images, prepared at the model's input size. The weight-only precisions need none, and look
            at none.
        precision: ``int8`` and ``fp8`` round weights and activations, ``int8-weights`` and ``int4-weights`` the weights
            of Linears alone.
        recipe: None is the default one. ``int8`` takes all of it, the other precisions its overrides.
        calibration_cache: a ``calibration.json``: read and used where it exists, written where it does not. The
            weight-only precisions have none.
        batch_size: images a run in calibration, where the model leaves it open.
        scale_bits: for ``int8``: significant bits of scales: 11, which FP16 holds, or 8 for a model that becomes BF16.
            The others have 11.
        int4_block: for ``int4-weights``: input channels that share a scale: 32, 64 or 128.
        progress: told what is going on.

    Raises:
        InputError: ``precision`` or ``int4_block`` is none of these; no data where some is needed; data or recipe do
            not fit the model; the cache is damaged, was made for something else, or has no use; the model is quantized
            already, has nothing to quantize, or has weights that cannot be.
    """
    if precision not in QUANTIZED:
        raise InputError("EF101", f"precision {precision!r}: it must be one of {', '.join(QUANTIZED)}")
    if precision == "int8":
        return quantize_int8(
            model,
            samples,
            recipe=recipe,
            calibration_cache=calibration_cache,
            batch_size=batch_size,
            scale_bits=scale_bits,
            progress=progress,
        )
    overrides = () if recipe is None else recipe.overrides
    if recipe is not None and recipe.quantize_attention:
        raise InputError("EF104", f"the recipe quantizes attention, which precision {precision} leaves in float")
    if precision == "fp8":
        return quantize_fp8(
            model,
            samples,
            overrides=overrides,
            calibration_cache=calibration_cache,
            batch_size=batch_size,
            progress=progress,
        )
    if calibration_cache is not None:
        raise InputError("EF104", f"a calibration file with precision {precision}, which calibrates nothing")
    return quantize_weights(model, precision, overrides=overrides, int4_block=int4_block, progress=progress)
