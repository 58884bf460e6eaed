"""FP8 E4M3 for weights and activations, calibrated by the largest magnitude.

An exponent of its own lets FP8 hold small values beside large ones, so that neither a clipped range nor SmoothQuant
helps: what is beyond the range would be lost, and nothing would be won within it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite
from edgeformer.graph.qdq_types import fp8_weight, insert_typed_qdq
from edgeformer.progress import Progress
from edgeformer.quantization.calibration import Calibration, calibration_key, load_calibration
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import Decision
from edgeformer.quantization.preparation import prepare
from edgeformer.quantization.recipe import ObserverSettings, Override, Recipe
from edgeformer.quantization.streaming import SamplesLike
from edgeformer.quantization.typed_result import TypedResult, chosen_layers
from edgeformer.records.quantization import ActivationRecord

__all__ = ["quantize_fp8"]

# Of a recipe's settings the overrides alone apply: this says so in the calibration's key.
_RECIPE = Recipe(
    name="fp8",
    observer=ObserverSettings(kind="min_max"),
    balance=False,
    choose_ranges=False,
    round_weights=False,
    correct_bias=False,
    degrade=False,
)


def quantize_fp8(
    model: onnx.ModelProto,
    samples: SamplesLike | None,
    *,
    overrides: Sequence[Override] = (),
    calibration_cache: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> TypedResult:
    """Quantize the Linears of ``model`` to FP8 E4M3, and with an override its convolutions.

    Args:
        model: an FP32 graph, fused or not.
        samples: calibration images, prepared at the model's input size.
        overrides: exceptions from the default policy.
        calibration_cache: a ``calibration.json``: read and used where it exists, written where it does not.
        batch_size: images a run in calibration, where the model leaves it open.
        progress: told what is going on.

    Raises:
        InputError: no data, or it does not fit the model; the cache is damaged or was made for something else; the
            model is quantized or 16-bit already, has nothing to quantize, or has weights that are NaN, infinite or
            beyond FP16.
    """
    if samples is None:
        raise InputError(
            "EF103", "FP8 needs calibration data: give a folder of images, an .npy or .npz file, or an iterator"
        )
    index = GraphIndex(prepare(model))
    decisions, sites = chosen_layers(index, "fp8", overrides, _refusal)
    key = calibration_key(model, samples, _RECIPE, [site.output for site in sites])
    cache = None if calibration_cache is None else Path(calibration_cache)
    reused = cache is not None and cache.exists()
    if cache is not None and reused:
        calibration = load_calibration(cache)
        calibration.check_key(key, cache)
    else:
        seen = observe(
            index.model,
            samples,
            sites,
            observer=_RECIPE.observer,
            batch_size=batch_size,
            progress=progress,
            index=index,
        )
        calibration = Calibration(
            key=key,
            recipe=_RECIPE.name,
            observer=_RECIPE.observer,
            images=seen.images,
            ranges=seen.ranges,
            histograms=seen.histograms,
        )
        if cache is not None:
            calibration.save(cache)
    result = insert_typed_qdq(
        index.model,
        sites,
        lambda site, weight: fp8_weight(weight, site.axis),
        ranges=calibration.ranges,
        index=index,
    )
    activations = _activations(sites, decisions, calibration)
    return TypedResult(result, "fp8", decisions, calibration, activations, reused)


def _refusal(_site: LayerSite, decision: Decision) -> str | None:
    if decision.op_type == "Conv" and not decision.because.startswith("recipe:"):
        return "a convolution: NVIDIA lists FP8 for matrix products (a recipe's override takes it in)"
    return None


def _activations(
    sites: Sequence[LayerSite], decisions: Sequence[Decision], calibration: Calibration
) -> tuple[ActivationRecord, ...]:
    names = {decision.output: decision.node for decision in decisions}
    readers: dict[str, list[str]] = {}
    for site in sites:
        readers.setdefault(site.activation, []).append(names[site.output])
    return tuple(
        ActivationRecord(
            tensor=tensor,
            layers=tuple(layers),
            amax=calibration.ranges[tensor],
            histogram=calibration.histograms.get(tensor),
        )
        for tensor, layers in readers.items()
    )
