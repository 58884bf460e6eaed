"""Post-training quantization of a float graph: policy, calibration, balancing, bias correction and Q/DQ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.fold_batch_norm import fold_batch_norm
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.qdq import AttentionSite, LayerSite, attention_site, insert_qdq, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.progress import Progress
from edgeformer.quantization.bias_correction import correct_biases, mean_errors
from edgeformer.quantization.calibration import Calibration, CalibrationKey, calibration_key, load_calibration
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.recipe import ObserverSettings, Recipe, load_recipe
from edgeformer.quantization.sensitivity import SwitchedModel, measure, snr_db, spread_batches
from edgeformer.quantization.smoothquant import balance
from edgeformer.quantization.streaming import SamplesLike

__all__ = ["QuantizeResult", "calibrate", "quantize"]

_BATCH_SIZE = 8
# What the passes need: ReduceMean with its axes as an input (18), Q/DQ with 16-bit scales (19), as the exporter writes.
_OPSET = 20


@dataclass(frozen=True)
class QuantizeResult:
    """A quantized model and how it came about.

    Attributes:
        model: FP32 typed, with Q/DQ pairs; `edgeformer.graph.types.to_float_type` makes it FP16 or BF16.
        calibration: what it was made from.
        decisions: for every layer, what became of it and why.
        reused: whether the calibration was read from the cache.
    """

    model: onnx.ModelProto
    calibration: Calibration
    decisions: tuple[Decision, ...]
    reused: bool


def quantize(
    model: onnx.ModelProto,
    samples: SamplesLike | None,
    *,
    recipe: Recipe | None = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    batch_size: int = _BATCH_SIZE,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize ``model`` to INT8 as ``recipe`` says.

    Args:
        model: an FP32 graph, fused or not.
        samples: calibration images, prepared at the model's input size.
        recipe: None is the default one.
        calibration_cache: a ``calibration.json``: read and used where it exists, written where it does not.
        batch_size: images a run in calibration, where the model leaves it open.
        progress: told what is going on.

    Raises:
        InputError: no data; data or recipe do not fit the model; the cache is damaged or was made for something else;
            the model is quantized already or has nothing to quantize.
    """
    if samples is None:
        raise InputError("INT8 needs calibration data: give a folder of images, an .npy or .npz file, or an iterator")
    recipe = recipe or load_recipe()
    prepared, decisions, key = _plan(model, samples, recipe)
    cache = None if calibration_cache is None else Path(calibration_cache)
    if cache is not None and cache.exists():
        calibration = load_calibration(cache)
        calibration.check_key(key, cache)
        return _apply(prepared, decisions, calibration, reused=True)
    calibration = calibrate(model, samples, recipe=recipe, batch_size=batch_size, progress=progress)
    if cache is not None:
        calibration.save(cache)
    return _apply(prepared, decisions, calibration, reused=False)


def calibrate(
    model: onnx.ModelProto,
    samples: SamplesLike,
    *,
    recipe: Recipe | None = None,
    batch_size: int = _BATCH_SIZE,
    progress: Progress | None = None,
) -> Calibration:
    """All of `quantize` that needs data.

    The model runs in FP32 in ONNX Runtime, the op through its function body. Memory holds one batch at a time.

    Args:
        model: an FP32 graph, fused or not.
        samples: calibration images.
        recipe: None is the default one.
        batch_size: images a run, where the model leaves it open.
        progress: told what is going on.

    Raises:
        InputError: as `quantize`.
    """
    recipe = recipe or load_recipe()
    prepared, decisions, key = _plan(model, samples, recipe)
    sites = _sites(prepared, decisions)
    channels = {}
    if recipe.balance:
        # The largest magnitudes only: balancing asks for the ends of each channel, whatever observer the recipe names.
        ends = ObserverSettings(kind="min_max")
        seen = observe(
            prepared, samples, sites, observer=ends, batch_size=batch_size, progress=progress, what="observing channels"
        )
        channels = seen.channels
        prepared = balance(prepared, sites, channels)
        sites = _sites(prepared, decisions)
    attention = _attention(prepared, decisions)
    seen = observe(
        prepared,
        samples,
        sites,
        slices=[part for place in attention for part in place.parts],
        observer=recipe.observer,
        batch_size=batch_size,
        progress=progress,
    )
    errors = {}
    if recipe.correct_bias:
        errors = mean_errors(prepared, samples, sites, seen.ranges, batch_size=batch_size, progress=progress)
    calibration = Calibration(
        key=key,
        recipe=recipe.name,
        observer=recipe.observer,
        images=seen.images,
        ranges=seen.ranges,
        channels=channels,
        bias_errors=errors,
    )
    if recipe.min_snr_db is None:
        return calibration
    images = spread_batches(samples, batch_size, max(len(sites), 1))
    switched = SwitchedModel(prepared, sites, seen.ranges, errors, images, attention)
    return calibration.model_copy(update=_sensitivity(switched, sites, attention, recipe, progress))


def _sensitivity(
    switched: SwitchedModel,
    sites: Sequence[LayerSite],
    attention: Sequence[AttentionSite],
    recipe: Recipe,
    progress: Progress | None,
) -> dict[str, Any]:
    """The layers that return to float and the SNRs, as fields of a `Calibration`; attention does not return."""
    assert recipe.min_snr_db is not None
    layers = [site.output for site in sites]
    found = measure(
        switched,
        layers,
        min_snr_db=recipe.min_snr_db,
        max_float_share=recipe.max_float_share,
        progress=progress,
    )
    if not attention:
        return {"snr_db": found.snr_db, "snr_all_int8_db": found.snr_all_int8_db, "returned": found.returned}
    attended = [place.output for place in attention]
    returned = {layer.output for layer in found.returned}
    kept = [layer for layer in layers if layer not in returned]
    return {
        "snr_db": snr_db(switched.noise([*kept, *attended])),
        "snr_all_int8_db": snr_db(switched.noise([*layers, *attended])),
        "snr_float_attention_db": found.snr_db,
        "returned": found.returned,
    }


def _plan(
    model: onnx.ModelProto, samples: SamplesLike, recipe: Recipe
) -> tuple[onnx.ModelProto, tuple[Decision, ...], CalibrationKey]:
    """The model prepared, what becomes of its layers, and the key of their calibration."""
    prepared = _prepare(model)
    decisions = decide(prepared, recipe.overrides, quantize_attention=recipe.quantize_attention)
    chosen = [decision.output for decision in decisions if decision.quantized]
    if not chosen:
        raise InputError(
            "nothing in this model is to be quantized: it has no Linear and no dense convolution besides its "
            "classifier, or the recipe leaves all of them out"
        )
    return prepared, decisions, calibration_key(model, samples, recipe, chosen)


def _prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model that is calibrated and quantized: batch norms folded, at an opset that knows 16-bit scales."""
    present = [node.op_type for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if present:
        raise InputError(f"the model is quantized already ({len(present)} Q/DQ nodes): give the float model")
    return fold_batch_norm(raise_opset(model, _OPSET))


def _sites(model: onnx.ModelProto, decisions: Sequence[Decision]) -> list[LayerSite]:
    """Where the layers chosen stand in ``model``; balancing changes their inputs and not their outputs."""
    index = GraphIndex(model)
    found = [layer_site(index, index.producer[item.output]) for item in decisions if item.quantized]
    return [site for site in found if isinstance(site, LayerSite)]


def _attention(model: onnx.ModelProto, decisions: Sequence[Decision]) -> list[AttentionSite]:
    """The op nodes chosen, in ``model``."""
    index = GraphIndex(model)
    nodes = [index.producer[item.output] for item in decisions if item.quantized and item.op_type == bra.OP_TYPE]
    found = [attention_site(index, node) for node in nodes]
    return [place for place in found if isinstance(place, AttentionSite)]


def _apply(
    prepared: onnx.ModelProto, decisions: Sequence[Decision], calibration: Calibration, *, reused: bool
) -> QuantizeResult:
    model = balance(prepared, _sites(prepared, decisions), calibration.channels) if calibration.channels else prepared
    returned = {layer.output: layer for layer in calibration.returned}
    sites = [site for site in _sites(model, decisions) if site.output not in returned]
    quantized = insert_qdq(model, sites, calibration.ranges, attention=_attention(model, decisions))
    result = correct_biases(quantized, sites, calibration.bias_errors)
    final = []
    for decision in decisions:
        layer = returned.get(decision.output)
        if layer is not None:
            because = f"returned to float: alone in INT8 it leaves the outputs {layer.snr_alone_db:.1f} dB"
            decision = replace(decision, quantized=False, because=because)
        elif decision.op_type == bra.OP_TYPE and calibration.snr_float_attention_db is not None:
            because = f"{decision.because}; the outputs keep {calibration.snr_db:.1f} dB, with float attention "
            decision = replace(decision, because=f"{because}{calibration.snr_float_attention_db:.1f} dB")
        final.append(decision)
    return QuantizeResult(result, calibration, tuple(final), reused)
