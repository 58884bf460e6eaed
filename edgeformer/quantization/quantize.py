"""Post-training quantization of a float graph: policy, calibration, SmoothQuant, bias correction and Q/DQ."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.fold_batch_norm import fold_batch_norm
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.prepare import prepared
from edgeformer.graph.protos import float_precision
from edgeformer.graph.qdq import AttentionSite, LayerSite, attention_site, insert_qdq, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.progress import Progress
from edgeformer.quantization.bias_correction import correct_biases, mean_errors
from edgeformer.quantization.calibration import (
    Calibration,
    CalibrationKey,
    ChannelRange,
    calibration_key,
    load_calibration,
)
from edgeformer.quantization.observation import observe, observe_channels
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.recipe import Recipe, load_recipe
from edgeformer.quantization.sensitivity import SwitchedModel, measure, snr_db, spread_batches
from edgeformer.quantization.smoothquant import apply_smoothquant
from edgeformer.quantization.streaming import SamplesLike, SpreadSamples
from edgeformer.records.quantization import ActivationRecord

__all__ = ["QuantizeResult", "calibrate", "quantize"]

_log = logging.getLogger(__name__)

_BATCH_SIZE = 8
# Images that SmoothQuant and bias correction look at. They take ends and means of channels, which hundreds of tokens of
# each image give; only the ranges, which a single image can stretch, need all images.
_CHANNEL_IMAGES = 64
# What the passes need: ReduceMean with its axes as an input (18), Q/DQ with 16-bit scales (19), as the exporter writes.
_OPSET = 20


@dataclass(frozen=True)
class QuantizeResult:
    """A quantized model and how it came about.

    Attributes:
        model: FP32 typed, with Q/DQ pairs; `edgeformer.graph.types.to_float_type` makes it FP16 or BF16.
        calibration: what it was made from.
        decisions: for every layer, what became of it and why.
        activations: what INT8 layers and INT8 attention read, and how it is distributed, in graph order.
        reused: whether the calibration was read from the cache.
    """

    model: onnx.ModelProto
    calibration: Calibration
    decisions: tuple[Decision, ...]
    activations: tuple[ActivationRecord, ...]
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
        raise InputError(
            "EF103", "INT8 needs calibration data: give a folder of images, an .npy or .npz file, or an iterator"
        )
    plan = _plan(model, samples, recipe or load_recipe())
    # The plan has a copy. A caller that does not keep the model needs no memory for it from here on.
    del model
    cache = None if calibration_cache is None else Path(calibration_cache)
    if cache is not None and cache.exists():
        calibration = load_calibration(cache)
        calibration.check_key(plan.key, cache)
        return _apply(plan.smoothed(calibration.channels), calibration, reused=True)
    channels = _channels(plan, samples, batch_size, progress)
    # In place of the first plan: its model goes.
    plan = plan.smoothed(channels)
    calibration = _calibrate(plan, channels, samples, batch_size, progress)
    if cache is not None:
        calibration.save(cache)
    return _apply(plan, calibration, reused=False)


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
    plan = _plan(model, samples, recipe or load_recipe())
    channels = _channels(plan, samples, batch_size, progress)
    return _calibrate(plan.smoothed(channels), channels, samples, batch_size, progress)


@dataclass(frozen=True)
class _Layers:
    """A float graph, its index, and where the layers chosen stand in it."""

    index: GraphIndex
    sites: list[LayerSite]
    attention: list[AttentionSite]

    @classmethod
    def of(cls, model: onnx.ModelProto, decisions: Sequence[Decision], index: GraphIndex | None = None) -> _Layers:
        index = index or GraphIndex(model)
        return cls(index, _sites(index, decisions), _attention(index, decisions))

    @property
    def model(self) -> onnx.ModelProto:
        return self.index.model


@dataclass(frozen=True)
class _Plan:
    """What is to be done with a model.

    Attributes:
        recipe: how.
        layers: of the model, prepared or smoothed.
        decisions: what becomes of its layers.
        key: of their calibration.
    """

    recipe: Recipe
    layers: _Layers
    decisions: tuple[Decision, ...]
    key: CalibrationKey

    def smoothed(self, channels: Mapping[str, ChannelRange]) -> _Plan:
        """The plan for the model after SmoothQuant, which changes the layers' inputs and not their outputs."""
        if not channels:
            return self
        before = self.layers
        model = apply_smoothquant(before.model, before.sites, channels, index=before.index)
        return replace(self, layers=_Layers.of(model, self.decisions))


def _channels(plan: _Plan, samples: SamplesLike, batch_size: int, progress: Progress | None) -> dict[str, ChannelRange]:
    """What SmoothQuant goes by; nothing where the recipe leaves it out."""
    if not plan.recipe.balance:
        return {}
    layers, some = plan.layers, SpreadSamples(samples, _CHANNEL_IMAGES)
    return observe_channels(
        layers.model, some, layers.sites, batch_size=batch_size, progress=progress, index=layers.index
    )


def _calibrate(
    plan: _Plan,
    channels: dict[str, ChannelRange],
    samples: SamplesLike,
    batch_size: int,
    progress: Progress | None,
) -> Calibration:
    """What calibration finds out about the model of a plan that is smoothed by ``channels``."""
    recipe, layers = plan.recipe, plan.layers
    seen = observe(
        layers.model,
        samples,
        layers.sites,
        slices=[part for place in layers.attention for part in place.parts],
        observer=recipe.observer,
        batch_size=batch_size,
        progress=progress,
        index=layers.index,
    )
    if min(seen.images, getattr(samples, "distinct", seen.images)) == 1:
        _log.warning(
            "the ranges come from %s: other images will leave them; calibrate on a few hundred that differ",
            "one image" if seen.images == 1 else f"{seen.images} images that are all alike",
        )
    errors = {}
    if recipe.correct_bias:
        errors = mean_errors(
            layers.model,
            SpreadSamples(samples, _CHANNEL_IMAGES),
            layers.sites,
            seen.ranges,
            batch_size=batch_size,
            progress=progress,
            index=layers.index,
        )
    calibration = Calibration(
        key=plan.key,
        recipe=recipe.name,
        observer=recipe.observer,
        images=seen.images,
        ranges=seen.ranges,
        histograms=seen.histograms,
        channels=channels,
        bias_errors=errors,
    )
    if recipe.min_snr_db is None:
        return calibration
    images = spread_batches(samples, batch_size, max(len(layers.sites), 1))
    switched = SwitchedModel(
        layers.model, layers.sites, seen.ranges, errors, images, layers.attention, index=layers.index
    )
    found = _sensitivity(switched, layers.sites, layers.attention, recipe, progress)
    return calibration.model_copy(update=found)


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


def _plan(model: onnx.ModelProto, samples: SamplesLike, recipe: Recipe) -> _Plan:
    prepared = _prepare(model)
    index = GraphIndex(prepared)
    decisions = decide(prepared, recipe.overrides, quantize_attention=recipe.quantize_attention, index=index)
    chosen = [decision.output for decision in decisions if decision.quantized]
    if not chosen:
        raise InputError(
            "EF504",
            "nothing in this model is to be quantized: it has no Linear and no dense convolution besides its "
            "classifier, or the recipe leaves all of them out",
        )
    key = calibration_key(model, samples, recipe, chosen)
    return _Plan(recipe, _Layers.of(prepared, decisions, index), decisions, key)


def _prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model that is calibrated and quantized: batch norms folded, at an opset that knows 16-bit scales."""
    present = [node.op_type for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if present:
        raise InputError("EF324", f"the model is quantized already ({len(present)} Q/DQ nodes): give the float model")
    model = prepared(model)
    own = float_precision(model)
    if own != "fp32":
        raise InputError(
            "EF324",
            f"the model computes in {own.upper()}, whose rounding INT8 would be calibrated on: give the FP32 model (in "
            "PyTorch, the one before .half() or .bfloat16())",
        )
    return fold_batch_norm(raise_opset(model, _OPSET))


def _sites(index: GraphIndex, decisions: Sequence[Decision]) -> list[LayerSite]:
    """Where the layers chosen stand in the graph."""
    found = [layer_site(index, index.producer[item.output]) for item in decisions if item.quantized]
    return [site for site in found if isinstance(site, LayerSite)]


def _attention(index: GraphIndex, decisions: Sequence[Decision]) -> list[AttentionSite]:
    """The op nodes chosen, in the graph."""
    nodes = [index.producer[item.output] for item in decisions if item.quantized and item.op_type == bra.OP_TYPE]
    found = [attention_site(index, node) for node in nodes]
    return [place for place in found if isinstance(place, AttentionSite)]


def _apply(plan: _Plan, calibration: Calibration, *, reused: bool) -> QuantizeResult:
    layers = plan.layers
    returned = {layer.output: layer for layer in calibration.returned}
    sites = [site for site in layers.sites if site.output not in returned]
    quantized = insert_qdq(layers.model, sites, calibration.ranges, attention=layers.attention, index=layers.index)
    result = correct_biases(quantized, sites, calibration.bias_errors)
    final = []
    for decision in plan.decisions:
        layer = returned.get(decision.output)
        if layer is not None:
            because = f"returned to float: alone in INT8 it leaves the outputs {layer.snr_alone_db:.1f} dB"
            decision = replace(decision, quantized=False, because=because)
        elif decision.op_type == bra.OP_TYPE and calibration.snr_float_attention_db is not None:
            because = f"{decision.because}; the outputs keep {calibration.snr_db:.1f} dB, with float attention "
            decision = replace(decision, because=f"{because}{calibration.snr_float_attention_db:.1f} dB")
        final.append(decision)
    activations = _activations(sites, layers.attention, plan.decisions, calibration)
    return QuantizeResult(result, calibration, tuple(final), activations, reused)


def _activations(
    sites: Sequence[LayerSite],
    attention: Sequence[AttentionSite],
    decisions: Sequence[Decision],
    calibration: Calibration,
) -> tuple[ActivationRecord, ...]:
    """What the layers at ``sites`` and INT8 attention read."""
    names = {decision.output: decision.node for decision in decisions}
    read = [(site.activation, site.output) for site in sites]
    read += [(part.name, place.output) for place in attention for part in place.parts]
    readers: dict[str, list[str]] = {}
    for tensor, output in read:
        readers.setdefault(tensor, []).append(names[output])
    return tuple(
        ActivationRecord(
            tensor=tensor,
            layers=tuple(layers),
            amax=calibration.ranges[tensor],
            histogram=calibration.histograms.get(tensor),
        )
        for tensor, layers in readers.items()
    )
