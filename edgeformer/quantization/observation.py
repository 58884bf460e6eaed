"""Calibration's passes over the data that look at the ranges of activations."""

from __future__ import annotations

from collections.abc import Sequence
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
from edgeformer.quantization.observers import ChannelObserver, RangeObserver
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.quantization.streaming import SamplesLike, TensorStream

__all__ = ["Observation", "observe", "short"]


@dataclass(frozen=True)
class Observation:
    """What `observe` saw.

    Attributes:
        images: number of images.
        ranges: activation, or name of a slice -> amax.
        channels: activation -> the ranges of its channels.
    """

    images: int
    ranges: dict[str, float]
    channels: dict[str, ChannelRange]


def observe(
    model: onnx.ModelProto,
    samples: SamplesLike,
    sites: Sequence[LayerSite],
    *,
    slices: Sequence[ChannelSlice] = (),
    observer: ObserverSettings,
    batch_size: int,
    progress: Progress | None = None,
    what: str = "observing ranges",
) -> Observation:
    """Ranges of the activations at ``sites``, and of ``slices`` of tensors, over all samples, in FP32.

    The state is a histogram of fixed size for each tensor: memory does not grow with the number of images.

    Raises:
        InputError: no samples; they do not fit the model; a tensor takes a value that is not finite (it is named).
    """
    index = GraphIndex(model)
    axes = {site.activation: 1 if index.producer[site.output].op_type == "Conv" else -1 for site in sites}
    parts = {part.name: part for part in slices}
    tensors = list(dict.fromkeys([*axes, *(part.tensor for part in slices)]))
    stream = TensorStream(model, tensors)
    ranges = {name: RangeObserver(observer) for name in (*axes, *parts)}
    channels = {name: ChannelObserver(axis) for name, axis in axes.items()}
    images = 0
    for count, values in stream.over(samples, batch_size, what, progress):
        broken = [name for name in tensors if not np.isfinite(values[name]).all()]
        if broken:
            raise InputError(
                f"calibration images {images} to {images + count - 1} make NaN or infinity in {len(broken)} "
                f"activations, first in {broken[0]!r}: check the images and the model's weights"
            )
        images += count
        for name in axes:
            ranges[name].update(values[name])
            channels[name].update(values[name])
        for name, part in parts.items():
            ranges[name].update(part.of(values[part.tensor]))
    return Observation(
        images,
        {name: seen.amax() for name, seen in ranges.items()},
        {
            name: ChannelRange(minimum=short(seen.minimum), maximum=short(seen.maximum))
            for name, seen in channels.items()
        },
    )


def short(array: npt.NDArray[Any] | None) -> tuple[float, ...]:
    """The numbers with seven digits, which is what FP32 has, so that the calibration file stays small."""
    return () if array is None else tuple(float(f"{value:.7g}") for value in array)
