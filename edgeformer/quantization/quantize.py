"""Post-training quantization of a float graph: policy, calibration, SmoothQuant, bias correction and Q/DQ."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import SCALE_BITS, AttentionSite, LayerSite, attention_site, insert_qdq, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.progress import Progress
from edgeformer.quantization.bias_correction import add_to_biases
from edgeformer.quantization.calibration import Calibration, CalibrationKey, calibration_key, load_calibration
from edgeformer.quantization.choice import choose
from edgeformer.quantization.moved_model import MovedModel
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.preparation import prepare
from edgeformer.quantization.recipe import ObserverSettings, Recipe, load_recipe
from edgeformer.quantization.settings import Settings, Sites
from edgeformer.quantization.stored import settings_of, stored_settings
from edgeformer.quantization.streaming import SamplesLike, SpreadSamples
from edgeformer.records.quantization import ActivationRecord

__all__ = ["QuantizeResult", "calibrate", "quantize"]

_log = logging.getLogger(__name__)

_BATCH_SIZE = 8
# Images that the histograms for people are of.
_SHOWN_IMAGES = 32


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
    scale_bits: int = SCALE_BITS,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize ``model`` to INT8 as ``recipe`` says.

    Args:
        model: an FP32 graph, fused or not.
        samples: calibration images, prepared at the model's input size.
        recipe: None is the default one.
        calibration_cache: a ``calibration.json``: read and used where it exists, written where it does not.
        batch_size: images a run in calibration, where the model leaves it open.
        scale_bits: significant bits of scales: 11, which FP16 holds, or 8 for a model that becomes BF16.
        progress: told what is going on.

    Raises:
        InputError: no data; data or recipe do not fit the model; the cache is damaged or was made for something else;
            the model is quantized already or has nothing to quantize.
    """
    if samples is None:
        raise InputError(
            "EF103", "INT8 needs calibration data: give a folder of images, an .npy or .npz file, or an iterator"
        )
    plan = _plan(model, samples, recipe or load_recipe(), scale_bits)
    # The plan has a copy. A caller that does not keep the model needs no memory for it from here on.
    del model
    cache = None if calibration_cache is None else Path(calibration_cache)
    if cache is not None and cache.exists():
        calibration = load_calibration(cache)
        calibration.check_key(plan.key, cache)
        return _apply(plan, calibration, reused=True)
    calibration = _calibrate(plan, samples, batch_size, progress)
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
    return _calibrate(_plan(model, samples, recipe or load_recipe(), SCALE_BITS), samples, batch_size, progress)


@dataclass(frozen=True)
class _Plan:
    """What is to be done with a model.

    Attributes:
        recipe: how.
        sites: the layers that the policy takes, in the model as it was prepared.
        attention: the op nodes that it takes.
        decisions: what becomes of each layer.
        key: of their calibration.
    """

    recipe: Recipe
    sites: Sites
    attention: tuple[AttentionSite, ...]
    decisions: tuple[Decision, ...]
    key: CalibrationKey


def _plan(model: onnx.ModelProto, samples: SamplesLike, recipe: Recipe, scale_bits: int) -> _Plan:
    prepared = prepare(model)
    index = GraphIndex(prepared)
    decisions = decide(prepared, recipe.overrides, quantize_attention=recipe.quantize_attention, index=index)
    chosen = [decision.output for decision in decisions if decision.quantized]
    if not chosen:
        raise InputError(
            "EF504",
            "nothing in this model is to be quantized: it has no Linear and no dense convolution besides its "
            "classifier, or the recipe leaves all of them out",
        )
    key = calibration_key(model, samples, recipe, [*chosen, f"scales of {scale_bits} bits"])
    sites = Sites(index, _sites(index, decisions), scale_bits)
    return _Plan(recipe, sites, tuple(_attention(index, decisions)), decisions, key)


def _calibrate(plan: _Plan, samples: SamplesLike, batch_size: int, progress: Progress | None) -> Calibration:
    """What calibration finds out about the model of a plan."""
    choice = choose(plan.sites, plan.attention, samples, plan.recipe, batch_size=batch_size, progress=progress)
    if min(choice.images, getattr(samples, "distinct", choice.images)) == 1:
        _log.warning(
            "the ranges come from %s: other images will leave them; calibrate on a few hundred that differ",
            "one image" if choice.images == 1 else f"{choice.images} images that are all alike",
        )
    moved = MovedModel.of(plan.sites, choice.settings)
    ranges = _ranges(plan, choice.settings, moved)
    histograms = observe(
        moved.index.model,
        SpreadSamples(samples, _SHOWN_IMAGES),
        moved.sites,
        slices=[part for place in plan.attention for part in place.parts],
        observer=ObserverSettings(kind="mse"),
        batch_size=batch_size,
        progress=progress,
        index=moved.index,
        amax=ranges,
    ).histograms
    return Calibration(
        key=plan.key,
        recipe=plan.recipe.name,
        observer=plan.recipe.observer,
        images=choice.images,
        ranges=ranges,
        histograms=histograms,
        snr=choice.snr,
        plain_snr=choice.plain_snr,
        attention_snr=choice.attention_snr,
        int8_share=choice.int8_share,
        met=choice.met,
        returned=choice.returned,
        front=choice.front,
        **stored_settings(plan.sites, choice.settings),
    )


def _ranges(plan: _Plan, settings: Settings, moved: MovedModel) -> dict[str, float]:
    """The ranges of what INT8 layers and INT8 attention read, by the names that the tensors have behind transforms."""
    read = {site.activation for site in moved.sites} | {part.name for place in plan.attention for part in place.parts}
    ranges = {moved.renamed.get(name, name): amax for name, amax in settings.ranges.items()}
    return {name: amax for name, amax in ranges.items() if name in read}


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
    settings = settings_of(plan.sites, calibration)
    moved = MovedModel.of(plan.sites, settings)
    quantized = insert_qdq(
        moved.index.model,
        moved.sites,
        calibration.ranges,
        weights={name: plan.sites.quantized(plan.sites.of_output[name], settings) for name in settings.layers},
        attention=plan.attention,
        scale_bits=plan.sites.scale_bits,
        index=moved.index,
    )
    result = add_to_biases(quantized, moved.sites, settings.biases)
    returned = {layer.output: layer for layer in calibration.returned}
    final = []
    for decision in plan.decisions:
        layer = returned.get(decision.output)
        if layer is not None:
            because = f"returned to float: {100 * layer.share:.1f} % of the multiply-adds for {layer.gain_db:+.1f} dB"
            decision = replace(decision, quantized=False, because=because)
        elif decision.op_type == bra.OP_TYPE and decision.quantized and calibration.attention_snr and calibration.snr:
            with_it, without = calibration.attention_snr.worse, calibration.snr.worse
            because = f"{decision.because}; the outputs keep {with_it:.1f} dB, with float attention {without:.1f} dB"
            decision = replace(decision, because=because)
        final.append(decision)
    activations = _activations(moved.sites, plan.attention, plan.decisions, calibration)
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
