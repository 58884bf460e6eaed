"""Calibration's passes over the data that look at activations: the ends of their channels, and their ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import ChannelSlice, LayerSite
from edgeformer.progress import Progress
from edgeformer.quantization.calibration import ChannelRange
from edgeformer.quantization.observers import ChannelObserver, RangeObserver, largest_magnitude
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.quantization.streaming import SamplesLike, TensorStream
from edgeformer.records.quantization import ActivationHistogram

__all__ = ["Observation", "fitting", "observe", "observe_channels", "short"]

# Bytes of the tensors that one batch may show. All of them are in memory at once, and twice over while they are copied.
_LARGEST_BATCH = 2**27


@dataclass(frozen=True)
class Observation:
    """What `observe` saw.

    Attributes:
        images: number of images.
        ranges: activation, or name of a slice -> amax.
        histograms: the same -> what was seen; those that the observer keeps.
    """

    images: int
    ranges: dict[str, float]
    histograms: dict[str, ActivationHistogram]


def observe(
    model: onnx.ModelProto,
    samples: SamplesLike,
    sites: Sequence[LayerSite],
    *,
    slices: Sequence[ChannelSlice] = (),
    observer: ObserverSettings,
    batch_size: int,
    progress: Progress | None = None,
    index: GraphIndex | None = None,
    amax: Mapping[str, float] | None = None,
) -> Observation:
    """Ranges of the activations at ``sites``, and of ``slices`` of tensors, over all samples, in FP32.

    The state is a histogram of fixed size for each tensor: memory does not grow with the number of images.

    Args:
        model: the float model.
        samples: calibration images.
        sites: the layers whose activations are watched.
        slices: channels of tensors with a range of their own.
        observer: how ranges are taken.
        batch_size: images a run at most; fewer where the activations are large.
        progress: told how many images are done.
        index: of ``model``, where there is one.
        amax: the ranges, where they are settled: what is clipped is told by them.

    Raises:
        InputError: no samples; they do not fit the model; a tensor takes a value that is not finite (it is named).
    """
    activations = list(dict.fromkeys(site.activation for site in sites))
    tensors = list(dict.fromkeys([*activations, *(part.tensor for part in slices)]))
    parts = {part.name: part for part in slices}
    ranges = {name: RangeObserver(observer) for name in (*activations, *parts)}
    images = 0
    stream = TensorStream(model, tensors)
    batch_size = fitting(index or GraphIndex(model), tensors, batch_size)
    for count, values in stream.over(samples, batch_size, "observing ranges", progress):
        largest = {name: largest_magnitude(values[name]) for name in tensors}
        broken = [name for name in tensors if not np.isfinite(largest[name])]
        _check_finite(broken, f"calibration images {images} to {images + count - 1}")
        images += count
        for name in activations:
            ranges[name].update(values[name], largest[name])
        for name, part in parts.items():
            ranges[name].update(part.of(values[part.tensor]))
    amax = {name: seen.amax() for name, seen in ranges.items()} if amax is None else dict(amax)
    shown = {name: seen.shown(amax[name]) for name, seen in ranges.items()}
    return Observation(
        images,
        amax,
        {name: histogram for name, histogram in shown.items() if histogram is not None},
    )


def observe_channels(
    model: onnx.ModelProto,
    samples: SamplesLike,
    sites: Sequence[LayerSite],
    *,
    batch_size: int,
    progress: Progress | None = None,
    index: GraphIndex | None = None,
) -> dict[str, ChannelRange]:
    """The smallest and the largest value of each channel of the activations at ``sites``, over the samples, in FP32.

    Args:
        model: the float model.
        samples: calibration images.
        sites: the layers.
        batch_size: images a run at most; fewer where the activations are large.
        progress: told how many images are done.
        index: of ``model``, where there is one.

    Returns:
        Activation -> the ranges of its channels.

    Raises:
        InputError: as `observe`.
    """
    index = index or GraphIndex(model)
    axes = {site.activation: 1 if index.producer[site.output].op_type == "Conv" else -1 for site in sites}
    ends = {name: ChannelObserver(axis) for name, axis in axes.items()}
    stream = TensorStream(model, list(axes))
    batch_size = fitting(index, list(axes), batch_size)
    for _, values in stream.over(samples, batch_size, "observing channels", progress):
        for name, seen in ends.items():
            seen.update(values[name])
        # They may be some of all images, so their numbers here would mislead.
        _check_finite([name for name, seen in ends.items() if not seen.finite], "some calibration images")
    return {name: ChannelRange(minimum=short(seen.minimum), maximum=short(seen.maximum)) for name, seen in ends.items()}


def _check_finite(broken: Sequence[str], images: str) -> None:
    if broken:
        raise InputError(
            "EF508",
            f"{images} make NaN or infinity in {len(broken)} activations, first in {broken[0]!r}: check the images "
            "and the model's weights",
        )


def fitting(index: GraphIndex, tensors: Sequence[str], batch_size: int) -> int:
    """``batch_size``, or fewer where the tensors would take too much memory, as far as shapes are known."""
    shapes = [index.shape(name) or (None,) for name in tensors]
    image = sum(4 * math.prod(size or 0 for size in shape[1:]) for shape in shapes)
    return max(1, min(batch_size, _LARGEST_BATCH // max(image, 1)))


def short(array: npt.NDArray[Any] | None) -> tuple[float, ...]:
    """The numbers with seven digits, which is what FP32 has, so that the calibration file stays small."""
    return () if array is None else tuple(float(f"{value:.7g}") for value in array)
