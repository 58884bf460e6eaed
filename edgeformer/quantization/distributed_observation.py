"""The ranges of activations, observed by many workers: for sets of images that take one process long.

Images go out in the batches in which one process would run them, some batches a task, and histograms come back. Their
ranges are powers of two, so they add up to exactly what one process has counted, whatever the order.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import fed_inputs
from edgeformer.graph.qdq import ChannelSlice, LayerSite
from edgeformer.progress import Progress
from edgeformer.quantization.distributed import Pool
from edgeformer.quantization.observation import Observation, _check_finite, fitting
from edgeformer.quantization.observers import RangeObserver, largest_magnitude
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.quantization.streaming import SamplesLike, TensorStream

__all__ = ["observe_on"]

# Bytes of the images that one task takes, as far as whole batches let it.
_TASK_BYTES = 2**24

_Batch = npt.NDArray[np.float32]
# An activation or a slice -> what `RangeObserver.state` gives.
_States = dict[str, tuple[npt.NDArray[np.int64], float, float]]


@dataclass(frozen=True)
class _Watched:
    """What is watched, as it is sent to workers.

    Attributes:
        model: the float model, serialized.
        activations: names of tensors.
        slices: tensor, first channel and the first behind the last, of each slice.
        observer: how ranges are taken.
        token: another one for each model that is watched.
    """

    model: bytes = field(repr=False)
    activations: tuple[str, ...]
    slices: tuple[tuple[str, int, int], ...]
    observer: dict[str, Any]
    token: str = field(default_factory=lambda: str(uuid.uuid4()))


# Of this process, where it is a worker: the session that it used last.
_streams: dict[str, TensorStream] = {}
_streams_lock = threading.Lock()


def _seen(watched: _Watched, first: int, batches: list[_Batch]) -> tuple[int, _States]:
    """On a worker: the number of images in some batches, and what they show; ``first`` is the first image's number."""
    parts = [ChannelSlice(*part) for part in watched.slices]
    tensors = tuple(dict.fromkeys([*watched.activations, *(part.tensor for part in parts)]))
    with _streams_lock:
        if watched.token not in _streams:
            _streams.clear()
            _streams[watched.token] = TensorStream(onnx.ModelProto.FromString(watched.model), tensors)
        stream = _streams[watched.token]
    settings = ObserverSettings(**watched.observer)
    ranges = {name: RangeObserver(settings) for name in (*watched.activations, *(part.name for part in parts))}
    images = 0
    for batch in batches:
        values = stream.run(batch)
        largest = {name: largest_magnitude(values[name]) for name in tensors}
        broken = [name for name in tensors if not np.isfinite(largest[name])]
        _check_finite(broken, f"calibration images {first + images} to {first + images + len(batch) - 1}")
        images += len(batch)
        for name in watched.activations:
            ranges[name].update(values[name], largest[name])
        for part in parts:
            ranges[part.name].update(part.of(values[part.tensor]))
    return images, {name: seen.state() for name, seen in ranges.items()}


def observe_on(
    pool: Pool,
    model: onnx.ModelProto,
    samples: SamplesLike,
    sites: Sequence[LayerSite],
    *,
    slices: Sequence[ChannelSlice] = (),
    observer: ObserverSettings,
    batch_size: int,
    progress: Progress | None = None,
    index: GraphIndex | None = None,
) -> Observation:
    """`edgeformer.quantization.observation.observe` on workers: the same arguments, and the same result bit for bit.

    This process reads the images, and holds no more of them than the workers are busy with.

    Args:
        pool: the workers.
        model: the float model.
        samples: calibration images.
        sites: the layers whose activations are watched.
        slices: channels of tensors with a range of their own.
        observer: how ranges are taken.
        batch_size: images a run at most; fewer where the activations are large.
        progress: told how many images are done.
        index: of ``model``, where there is one.

    Raises:
        InputError: no samples; they do not fit the model; a tensor takes a value that is not finite (it is named).
        EnvironmentFault: the workers or their scheduler went away.
    """
    activations = tuple(dict.fromkeys(site.activation for site in sites))
    tensors = list(dict.fromkeys([*activations, *(part.tensor for part in slices)]))
    size = _fixed_batch(model) or fitting(index or GraphIndex(model), tensors, batch_size)
    watched = _Watched(
        model=model.SerializeToString(),
        activations=activations,
        slices=tuple((part.tensor, part.start, part.stop) for part in slices),
        observer=observer.model_dump(mode="json"),
    )
    ranges = {name: RangeObserver(observer) for name in (*activations, *(part.name for part in slices))}
    images = 0
    for _, (count, states) in pool.results(_seen, watched, _tasks(samples, size)):
        images += count
        for name, state in states.items():
            ranges[name].merge(state)
        if progress is not None:
            progress("observing ranges", images, samples.count)
    if not images:
        raise InputError(
            "EF403", "there are no calibration images: give a folder, an array file or an iterator that holds some"
        )
    amax = {name: seen.amax() for name, seen in ranges.items()}
    shown = {name: seen.shown(amax[name]) for name, seen in ranges.items()}
    return Observation(images, amax, {name: one for name, one in shown.items() if one is not None})


def _fixed_batch(model: onnx.ModelProto) -> int | None:
    sizes = [value.type.tensor_type.shape.dim[:1] for value in fed_inputs(model.graph)]
    return next((size[0].dim_value for size in sizes if size and size[0].HasField("dim_value")), None)


def _tasks(samples: SamplesLike, batch_size: int) -> Iterator[tuple[int, list[_Batch]]]:
    """Number of the first image, and batches, for one task after another."""
    first, batches, taken = 0, list[_Batch](), 0
    for batch in samples.batches(batch_size):
        batches.append(batch.images)
        taken += batch.images.nbytes
        if taken >= _TASK_BYTES:
            yield first, batches
            first += sum(map(len, batches))
            batches, taken = [], 0
    if batches:
        yield first, batches
