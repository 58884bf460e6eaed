"""A float graph in which every layer can be tried in INT8: what quantizes it are inputs, so that nothing is built anew.

For a layer ``y = x @ W + b`` the graph reads ``x + gate * (DQ(Q(x * scale + offset)) - x)``, a weight that is fed, and
adds what is fed to the bias. With all gates at 0 it is the float model exactly.

The graph is cut into parts. What one layer changes comes behind it: a trial starts at the first part whose inputs
differ from those of the settings that were settled last, from what these handed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import fed_inputs
from edgeformer.graph.qdq import AttentionSite, LayerSite
from edgeformer.graph.segments import cut_positions, segments
from edgeformer.quantization.settings import IDENTITY, Settings, Sites, Transform
from edgeformer.quantization.trial_graph import TrialGraph
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import as_input

__all__ = ["Noise", "Trial", "snr_db"]

_Array = npt.NDArray[Any]
# Tensors by name.
_Values = dict[str, _Array]
# An SNR that stands for "no difference at all": JSON has no infinity.
_NO_NOISE_DB = 200.0
# Parts that the model is cut into at most.
_PARTS = 24
_OFF = np.asarray(0, np.float32)
_ON = np.asarray(1, np.float32)
# Arrays that are kept to be fed again, of each input.
_KEPT = 4


class _Same:
    """Equal to another one of the same object: a key for what has no hash."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def snr_db(noise: float) -> float:
    """``-10 log10(noise)`` in dB for a relative noise power, at most 200."""
    if not noise > 0:
        return _NO_NOISE_DB if noise == 0 else -_NO_NOISE_DB
    return float(np.clip(-10 * math.log10(noise), -_NO_NOISE_DB, _NO_NOISE_DB))


@dataclass(frozen=True)
class Noise:
    """Relative noise power ``sum (ref - x)^2 / sum ref^2`` of the outputs, the output counting where it is largest.

    Attributes:
        clean: on the images as they are.
        degraded: on degraded versions of them; the same where there are none.
        typical_db: mean over all images of each one's own SNR. The sums follow the few images in which a near-tie
            flips, and those are others for the next settings.
    """

    clean: float
    degraded: float
    typical_db: float

    @property
    def clean_db(self) -> float:
        """The SNR on the images as they are."""
        return snr_db(self.clean)

    @property
    def degraded_db(self) -> float:
        """The SNR on degraded versions of them."""
        return snr_db(self.degraded)

    @property
    def worse_db(self) -> float:
        """The smaller of the two SNRs."""
        return min(self.clean_db, self.degraded_db)

    @property
    def mean_db(self) -> float:
        """The mean of the two SNRs."""
        return (self.clean_db + self.degraded_db) / 2


@dataclass
class _Batch:
    """Images of one kind, what the parts hand on for them under the settings settled last, and the float outputs."""

    kind: int
    images: _Array
    references: _Values
    known: _Values


class Trial:
    """The model, and the images to try it on.

    Args:
        sites: the model's layers; their index is of the float model, at opset 18 at least.
        attention: op nodes that are INT8 together.
        clean: batches of images ``[N, 3, H, W]``, float32.
        degraded: degraded versions of them; may be none.
    """

    def __init__(
        self,
        sites: Sites,
        attention: Sequence[AttentionSite] = (),
        clean: Sequence[npt.NDArray[np.float32]] = (),
        degraded: Sequence[npt.NDArray[np.float32]] = (),
    ) -> None:
        self._sites = sites
        self._attention = tuple(attention)
        model = sites.index.model
        self._outputs = [value.name for value in model.graph.output]
        (image,) = fed_inputs(model.graph)
        self._image = image.name
        size = image.type.tensor_type.shape.dim[0]
        self._batch_size = size.dim_value if size.HasField("dim_value") else None
        writer = TrialGraph(sites, self._attention)
        self._layers, self._activations = writer.layers, writer.activations
        self._attention_gate, self._attention_steps = writer.attention_gate, writer.attention_steps
        self._parts = _parts(writer)
        self._info = next((one.inputs[self._image] for _, one in self._parts if self._image in one.inputs), None)
        self._fed: dict[tuple[Any, ...], dict[tuple[Any, ...], _Array]] = {}
        self._settled = self._feeds(Settings(frozenset(), {}))
        # Runs of the whole model on one image, for whoever has to keep to a budget.
        self.runs = 0.0
        self._batches = [self._batch(0, images) for images in clean]
        self._batches += [self._batch(1, images) for images in degraded]

    @property
    def batches(self) -> int:
        """Batches of clean images, and as many of degraded ones, where there are any."""
        return sum(batch.kind == 0 for batch in self._batches)

    def settle(self, settings: Settings) -> None:
        """Keep what the parts hand on under these settings: trials that differ in a few layers start from there."""
        feeds = self._feeds(settings)
        start = self._start(feeds)
        for batch in self._batches:
            batch.known = self._run(feeds, batch.known, start)
        self._settled = feeds

    def noise(self, settings: Settings, batches: int | None = None) -> Noise:
        """What the settings make of the outputs.

        Args:
            settings: to be tried.
            batches: try them on so many batches of each kind only.
        """
        feeds = self._feeds(settings)
        start = self._start(feeds)
        tally = _Tally(len(self._outputs))
        seen = [0, 0]
        for batch in self._batches:
            if batches is not None and seen[batch.kind] >= batches:
                continue
            seen[batch.kind] += 1
            found = self._run(feeds, batch.known, start)
            pairs = [(batch.references[name], found[name]) for name in self._outputs]
            tally.add(batch.kind, pairs, len(batch.images))
        return tally.noise()

    def outputs(self, settings: Settings, images: npt.NDArray[np.float32]) -> _Values:
        """The network's outputs for a batch."""
        values = self._run(self._feeds(settings), {self._image: self._shaped(images)}, 0)
        return {name: values[name] for name in self._outputs}

    def corrected(self, settings: Settings, images: Sequence[npt.NDArray[np.float32]]) -> Settings:
        """The settings with biases that take back each layer's mean error, one layer after the other.

        A layer's error is what its output channels differ by, on average, from those of the float model, the layers
        before it being quantized and corrected already.

        Args:
            settings: how the model is quantized; its own biases are left out.
            images: batches of one size.
        """
        floats = self._feeds(Settings(frozenset(), {}))
        feeds = dict(self._feeds(replace(settings, biases={}, attention=False)))
        exact = [{self._image: self._shaped(batch)} for batch in images]
        rounded = [dict(values) for values in exact]
        known = behind = 0  # parts that `exact` and `rounded` have been through
        biases = {}
        for site in self._sites.sites:
            if site.output not in settings.layers:
                continue
            layer = self._layers[site.output]
            end = next(place for place, (_, part) in enumerate(self._parts) if layer.mean in part.outputs) + 1
            exact = [self._run(floats, values, known, end) for values in exact]
            rounded = [self._run(feeds, values, behind, end) for values in rounded]
            pairs = zip(rounded, exact, strict=True)
            error = np.mean([new[layer.mean] - old[layer.mean] for new, old in pairs], axis=0, dtype=np.float64)
            biases[site.output] = np.asarray(-error, dtype=np.float32)
            feeds[layer.bias] = feeds[layer.bias] + self._shaped_bias(site, -error)
            known = max(known, end)
            behind = next(place for place, (inputs, _) in enumerate(self._parts) if layer.bias in inputs)
            exact = [self._still_read(values, known) for values in exact]
            rounded = [self._still_read(values, behind) for values in rounded]
        return replace(settings, biases=biases)

    def _batch(self, kind: int, images: npt.NDArray[np.float32]) -> _Batch:
        images = self._shaped(images)
        known = self._run(self._settled, {self._image: images}, 0)
        return _Batch(kind, images, {name: known[name] for name in self._outputs}, known)

    def _shaped(self, images: npt.NDArray[np.float32]) -> _Array:
        if self._batch_size is not None and len(images) != self._batch_size:
            images = np.resize(images, (self._batch_size, *images.shape[1:]))
        return images if self._info is None else as_input(self._info, images)

    def _start(self, feeds: _Values) -> int:
        """The first part that reads something that is not what was settled."""
        changed = {name for name, value in feeds.items() if value is not self._settled.get(name)}
        return next(
            (p for p, (inputs, _) in enumerate(self._parts) if not changed.isdisjoint(inputs)), len(self._parts)
        )

    def _still_read(self, values: _Values, start: int) -> _Values:
        """Those of the values that the parts from ``start`` on read, and means."""
        read = {self._image, *(layer.mean for layer in self._layers.values())}
        read = read.union(*(inputs for inputs, _ in self._parts[start:]))
        return {name: value for name, value in values.items() if name in read}

    def _run(self, feeds: _Values, known: _Values, start: int, end: int | None = None) -> _Values:
        """What the parts from ``start`` on make of what those before them handed on, and that."""
        values = dict(known)
        for position in range(start, len(self._parts) if end is None else end):
            values |= self._step(feeds, values, position)
        return values

    def _step(self, feeds: _Values, values: _Values, position: int) -> _Values:
        """``values`` and what one part makes of them."""
        inputs, session = self._parts[position]
        self.runs += len(values[self._image]) / len(self._parts)
        made = session.run({name: feeds[name] if name in feeds else values[name] for name in inputs})
        return {**values, **made}

    def _feeds(self, settings: Settings) -> _Values:
        """What is fed besides images. Equal choices give the same arrays: `_start` tells them by identity."""
        feeds: _Values = {}
        for tensor in self._activations:
            feeds |= self._activation_feeds(
                tensor, settings.ranges.get(tensor, 0.0), settings.transforms.get(tensor, IDENTITY)
            )
        for site in self._sites.sites:
            on = site.output in settings.layers
            feeds |= self._layer_feeds(site, settings) if on else self._float_feeds(site)
        if self._attention_gate is not None:
            feeds[self._attention_gate] = _ON if settings.attention else _OFF
            for place in self._attention:
                ranges = {part.name: settings.ranges.get(part.name, 0.0) for part in place.parts}
                feeds[self._attention_steps[place.output]] = self._once(
                    ("attention", place.output, *ranges.values()), partial(place.channel_scales, ranges)
                )
        return feeds

    def _activation_feeds(self, tensor: str, amax: float, transform: Transform) -> _Values:
        names = self._activations[tensor]
        axes = (-1, 1, 1) if self._sites.convolution(self._sites.readers[tensor][0]) else (-1,)
        return {
            names.step: self._once(("step", tensor, amax), lambda: np.asarray(self._sites.step(amax))),
            names.scale: self._once(
                ("scale", tensor, transform.scale), lambda: transform.scales.astype(np.float32).reshape(axes)
            ),
            names.offset: self._once(
                ("offset", tensor, transform.offset), lambda: transform.offsets.astype(np.float32).reshape(axes)
            ),
        }

    def _float_feeds(self, site: LayerSite) -> _Values:
        names = self._layers[site.output]
        weight = self._once(("float", site.output), lambda: np.ascontiguousarray(self._sites.weight(site)))
        nothing = self._once(("no bias", site.output), lambda: self._shaped_bias(site, np.zeros(1)))
        return {names.gate: _OFF, names.weight: weight, names.bias: nothing}

    def _layer_feeds(self, site: LayerSite, settings: Settings) -> _Values:
        names = self._layers[site.output]
        transform = settings.transforms.get(site.activation, IDENTITY)
        given, bias = settings.weights.get(site.output), settings.biases.get(site.output)
        # By identity, which holds as long as the array is kept, and it is kept as long as its key.
        weight = self._once(
            ("weight", site.output, transform, _Same(given)), lambda: self._sites.restored(site, settings)
        )
        return {
            names.gate: _ON,
            names.weight: weight,
            names.bias: self._once(
                ("bias", site.output, transform, _Same(bias)), lambda: self._bias(site, transform, bias)
            ),
        }

    def _bias(self, site: LayerSite, transform: Transform, added: npt.NDArray[np.float32] | None) -> _Array:
        _, bias = self._sites.transformed(site, transform)
        return self._shaped_bias(site, bias if added is None else bias + added)

    def _shaped_bias(self, site: LayerSite, bias: npt.NDArray[Any]) -> _Array:
        shape = (-1, *(1,) * (self._sites.weight(site).ndim - 2)) if self._sites.convolution(site) else (-1,)
        return bias.astype(np.float32).reshape(shape)

    def _once(self, key: tuple[Any, ...], make: Callable[[], _Array]) -> _Array:
        """What was made for this key before, where it was: the newest few of each tensor are kept."""
        kept = self._fed.setdefault(key[:2], {})
        if key not in kept:
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            kept[key] = make()
        return kept[key]


class _Tally:
    """Sums up noise and power of each output, for clean images and for degraded ones."""

    def __init__(self, outputs: int) -> None:
        self._noise = np.zeros((2, outputs))
        self._power = np.zeros((2, outputs))
        self._images: list[list[_Array]] = [[], []]

    def add(self, kind: int, pairs: Sequence[tuple[_Array, _Array]], images: int) -> None:
        """One batch: reference and result of each output, and how many images it has.

        An output that is not of one image after the other counts the same for each of them, and one whose shape the
        rounding changes as noise alone.
        """
        single = []
        for place, (reference, found) in enumerate(pairs):
            rows = images if reference.ndim and len(reference) == images else 1
            wide = reference.astype(np.float64).reshape(rows, -1)
            power = (wide**2).sum(axis=1)
            noise = np.full(rows, np.inf)
            if found.shape == reference.shape:
                noise = ((wide - found.reshape(wide.shape)) ** 2).sum(axis=1)
            self._noise[kind, place] += noise.sum()
            self._power[kind, place] += power.sum()
            single.append(np.broadcast_to(_relative(noise, power.mean()), (images,)))
        self._images[kind].append(np.max(single, axis=0))

    def noise(self) -> Noise:
        relative = _relative(self._noise, self._power).max(axis=1)
        clean, degraded = (float(relative[kind]) if self._images[kind] else None for kind in (0, 1))
        images = [snr_db(float(one)) for kind in self._images for batch in kind for one in batch]
        first = clean if clean is not None else degraded
        assert first is not None
        return Noise(first, first if degraded is None else degraded, float(np.mean(images)))


def _relative(noise: npt.NDArray[np.float64], power: Any) -> npt.NDArray[np.float64]:
    """Noise by power; nothing by nothing is no noise, and what is not finite is as bad as can be."""
    power = np.broadcast_to(np.asarray(power, dtype=np.float64), noise.shape)
    shares = np.where(power > 0, noise / np.where(power > 0, power, 1), (noise != 0).astype(np.float64))
    return np.nan_to_num(shares, nan=np.inf)


def _parts(graph: TrialGraph) -> list[tuple[tuple[str, ...], OnnxSession]]:
    """The model in parts of about as many layers each: what each reads, and its session."""
    index = GraphIndex(graph.model)
    unseen = set(graph.gates)
    marks = []
    for position, node in enumerate(graph.model.graph.node):
        new = unseen.intersection(node.input)
        if new:
            marks.append(position)
            unseen -= new
    parts = segments(index, cut_positions(index, marks, _PARTS))
    return [(part.inputs, OnnxSession(part.model, optimization="basic")) for part in parts]
