"""Measured sensitivity: how much INT8 costs at the network's outputs, all layers together and each layer alone.

Where the outputs' SNR misses what the recipe asks for, the layers that alone do the most harm return to float, one
after another, until it is met or the recipe's share of layers is used up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import fed_inputs
from edgeformer.graph.qdq import AttentionSite, LayerSite
from edgeformer.graph.segments import cut_positions, segments
from edgeformer.progress import Progress
from edgeformer.quantization.calibration import ReturnedLayer
from edgeformer.quantization.fake_quantization import with_switches
from edgeformer.quantization.streaming import SamplesLike, SpreadSamples
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import as_input

__all__ = ["Sensitivity", "SwitchedModel", "measure", "snr_db", "spread_batches"]

# Tensors by name.
_Values = dict[str, npt.NDArray[Any]]
# An SNR that stands for "no difference at all": JSON has no infinity.
_NO_NOISE_DB = 200.0
# Ranking takes at most one run of the model for each layer and image. A deep model gets fewer images, so that the time
# grows with its depth and not with the square of it; whole choices of layers are measured on four times as many.
_RANKING_RUNS = 400
_RANKING_IMAGES = (4, 16)
_SNR_BATCHES = 4
# Parts that the model is cut into. With one layer in INT8 half of them run, on average, and half of one more.
_PARTS = 8


def snr_db(noise: float) -> float:
    """``-10 log10(noise)`` in dB for a relative noise power, at most 200."""
    return min(-10 * math.log10(noise), _NO_NOISE_DB) if noise > 0 else _NO_NOISE_DB


@dataclass(frozen=True)
class Sensitivity:
    """What was measured and decided.

    Attributes:
        snr_all_int8_db: SNR of the outputs with every layer in INT8, the worst output counting.
        snr_db: the same with the returned layers in float.
        returned: the layers that returned, most harmful first.
    """

    snr_all_int8_db: float
    snr_db: float
    returned: tuple[ReturnedLayer, ...]


class SwitchedModel:
    """The model with a switch for each layer and one for all attention, and the images to measure on.

    It is cut into parts. What one layer changes comes behind it, so a run in which all layers before some part are in
    float starts there, from what the float model made of the same images.

    Args:
        model: the float model, after SmoothQuant.
        sites: the layers.
        ranges: their activations' ranges.
        bias_errors: their mean errors, subtracted where the layer is in INT8.
        batches: images, ``[N, 3, H, W]`` float32 each. Of the first, which ranks the layers, what the parts hand on is
            kept.
        attention: op nodes that are INT8 together: the output of any of them stands for all.
        index: of ``model``, where there is one.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        sites: Sequence[LayerSite],
        ranges: Mapping[str, float],
        bias_errors: Mapping[str, Sequence[float]],
        batches: Sequence[npt.NDArray[np.float32]],
        attention: Sequence[AttentionSite] = (),
        *,
        index: GraphIndex | None = None,
    ) -> None:
        # The whole of it is gone once it is cut: its weights are those of the parts.
        self._parts, self._switches = _parts(*with_switches(model, sites, ranges, bias_errors, attention, index))
        self._switch_of = dict(zip([site.output for site in sites], self._switches, strict=False))
        self._switch_of |= {place.output: self._switches[-1] for place in attention}
        self._outputs = [value.name for value in model.graph.output]
        (image,) = fed_inputs(model.graph)
        self._image = image.name
        size = image.type.tensor_type.shape.dim[0]
        self._batch_size = size.dim_value if size.HasField("dim_value") else None
        self._info = next((one.inputs[image.name] for _, one in self._parts if image.name in one.inputs), None)
        self._batches = batches
        self._known: _Values = {}
        self._references = []
        for number, images in enumerate(batches):
            values = self._values(images, ())
            self._references.append({name: values[name] for name in self._outputs})
            self._known = values if number == 0 else self._known

    def run(self, images: npt.NDArray[np.float32], layers: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """The outputs for a batch, with ``layers`` (their output tensors) in INT8 and all others in float."""
        values = self._values(images, layers)
        return {name: values[name] for name in self._outputs}

    def _values(self, images: npt.NDArray[np.float32], layers: Sequence[str], known: _Values | None = None) -> _Values:
        """All that the parts hand on; ``known`` is that of a run on the same images in float, if there was one."""
        if self._batch_size is not None and len(images) != self._batch_size:
            images = np.resize(images, (self._batch_size, *images.shape[1:]))
        on = {self._switch_of[layer] for layer in layers}
        if self._info is not None:
            images = as_input(self._info, images)
        values = {self._image: images} if known is None else dict(known)
        values |= {name: np.asarray(name in on, np.float32) for name in self._switches}
        changed = known is None
        for inputs, session in self._parts:
            changed = changed or not on.isdisjoint(inputs)
            if changed:
                values |= session.run({name: values[name] for name in inputs})
        return values

    def noise(self, layers: Sequence[str], batches: int | None = None) -> float:
        """Relative noise power ``sum (ref - x)^2 / sum ref^2`` of the output where it is largest.

        Args:
            layers: the layers in INT8.
            batches: measure on so many of the batches only.
        """
        noise = dict.fromkeys(self._outputs, 0.0)
        power = dict.fromkeys(self._outputs, 0.0)
        for number, images in enumerate(self._batches[:batches]):
            references = self._references[number]
            found = self._values(images, layers, self._known if number == 0 else None)
            for name, reference in references.items():
                wide = reference.astype(np.float64)
                power[name] += float((wide**2).sum())
                noise[name] += float(((wide - found[name]) ** 2).sum())
        return max(noise[name] / power[name] if power[name] else float(noise[name] > 0) for name in self._outputs)


def _parts(
    switched: onnx.ModelProto, switches: Sequence[str]
) -> tuple[list[tuple[tuple[str, ...], OnnxSession]], Sequence[str]]:
    """The model in parts of about as many layers each: what each part reads, and its session; and the switches."""
    index = GraphIndex(switched)
    unseen = set(switches)
    marks = []
    for position, node in enumerate(switched.graph.node):
        new = unseen.intersection(node.input)
        if new:
            marks.append(position)
            unseen -= new
    parts = segments(index, cut_positions(index, marks, _PARTS))
    return [(part.inputs, OnnxSession(part.model, optimization="basic")) for part in parts], switches


def measure(
    switched: SwitchedModel,
    layers: Sequence[str],
    *,
    min_snr_db: float,
    max_float_share: float,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure the INT8 model, and return layers to float until it keeps ``min_snr_db`` or the share is used up.

    Args:
        switched: the model and its images; the first batch ranks the layers.
        layers: output tensors of the layers that are to be INT8.
        min_snr_db: the SNR wanted, in dB.
        max_float_share: at most this share of ``layers`` returns.
        progress: told after each layer.
    """
    everything = snr_db(switched.noise(layers))
    allowed = math.floor(max_float_share * len(layers))
    if everything >= min_snr_db or not allowed:
        return Sensitivity(everything, everything, ())
    alone: dict[str, float] = {}
    groups = _groups(switched, layers)
    for group in groups:
        for layer in group:
            alone[layer] = snr_db(switched.noise([layer], batches=1))
            if progress is not None:
                progress("measuring sensitivity", len(alone), len(layers))
        ranked = sorted(alone, key=lambda layer: alone[layer])
        count = min(allowed, len(ranked))
        best = snr_db(switched.noise(_without(layers, ranked[:count])))
        if best >= min_snr_db:
            break
    if best <= everything:
        return Sensitivity(everything, everything, ())
    if best >= min_snr_db:
        # The fewest that do: each return helps or nearly so, which is all that bisection needs.
        too_few = 0
        while count - too_few > 1:
            middle = (count + too_few) // 2
            now = snr_db(switched.noise(_without(layers, ranked[:middle])))
            if now >= min_snr_db:
                count, best = middle, now
            else:
                too_few = middle
    chosen = [ReturnedLayer(output=layer, snr_alone_db=round(alone[layer], 2)) for layer in ranked[:count]]
    return Sensitivity(everything, best, tuple(chosen))


def _groups(switched: SwitchedModel, layers: Sequence[str]) -> list[list[str]]:
    """Neighbouring layers in groups of about ``sqrt(n)``, the group first that does the most harm.

    Harm is rarely spread over the whole network. Looking into the worst groups first finds it in far fewer runs than
    asking every layer.
    """
    size = math.ceil(math.sqrt(len(layers)))
    groups = [list(layers[start : start + size]) for start in range(0, len(layers), size)]
    return sorted(groups, key=lambda group: -switched.noise(group, batches=1))


def _without(layers: Sequence[str], returned: Sequence[str]) -> list[str]:
    return [layer for layer in layers if layer not in returned]


def spread_batches(samples: SamplesLike, batch_size: int, layers: int) -> list[npt.NDArray[np.float32]]:
    """Images evenly spread over the samples, which may be sorted by class: four batches, each enough to rank layers.

    Args:
        samples: the calibration data.
        batch_size: in which they are read.
        layers: number of layers to be ranked.
    """
    low, high = _RANKING_IMAGES
    wanted = _SNR_BATCHES * min(max(_RANKING_RUNS // layers, low), high)
    chosen: list[npt.NDArray[np.float32]] = []
    for batch in SpreadSamples(samples, wanted).batches(batch_size):
        chosen.extend(batch.images)
        if len(chosen) >= wanted:
            break
    # Neighbours may be of one class: every batch takes images from all over.
    batches = min(_SNR_BATCHES, len(chosen))
    return [np.stack(chosen[start:wanted:batches]) for start in range(batches)]
