"""What calibration does with its images: ranges from all of them, and from some the choice of everything else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgeformer.graph.multiply_adds import multiply_adds
from edgeformer.graph.protos import fed_inputs
from edgeformer.graph.qdq import AttentionSite
from edgeformer.progress import Progress
from edgeformer.quantization.calibration import ChannelRange, ReturnedLayer, Snr
from edgeformer.quantization.degradations import degraded
from edgeformer.quantization.moved_model import MovedModel
from edgeformer.quantization.observation import observe, observe_channels
from edgeformer.quantization.recipe import ObserverSettings, Recipe
from edgeformer.quantization.search import Found, Goal, Search
from edgeformer.quantization.settings import IDENTITY, Settings, Sites
from edgeformer.quantization.smoothquant import amax_behind
from edgeformer.quantization.streaming import BatchLike, SamplesLike, SpreadSamples
from edgeformer.quantization.task_drop import drop_goal
from edgeformer.quantization.trial import Noise, Trial
from edgeformer.records.quantization import FrontPoint

__all__ = ["Choice", "choose"]

_log = logging.getLogger(__name__)
_Images = npt.NDArray[np.float32]

# Multiply-adds that a search takes, and the runs on one image that this makes at least and at most.
_MULTIPLY_ADDS = 0.2e12
_RUNS = (160, 12000)
# Runs for each image that there is: a longer search would fit them.
_RUNS_FOR_EACH = 40
# Runs that an image which settings are judged by is worth; and how many images there are at least and at most.
_RUNS_PER_IMAGE = 200
_JUDGED = (4, 32)
# Images that biases and weights are fitted to, and that channels are looked at in.
_FITTED = (8, 48)
_CHANNEL_IMAGES = 96
# Images of a run, where the model leaves it open.
_RUN_SIZE = 8
# Seeds of the degraded versions: for the ends of channels, to judge settings by, and to fit them to.
_SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        settings: how the model is quantized; INT8 attention included.
        images: that ranges were taken from.
        snr: of ``settings`` without INT8 attention; None where nothing was searched.
        plain_snr: of the same layers rounded to the nearest, and nothing else.
        attention_snr: of ``settings`` with INT8 attention; None where there is none.
        int8_share: share of the multiply-adds that is INT8; None where shapes do not tell.
        met: whether the recipe's target was met; None where it has none.
        returned: layers that went back to float.
        front: the trade of error and INT8 share.
    """

    settings: Settings
    images: int
    snr: Snr | None = None
    plain_snr: Snr | None = None
    attention_snr: Snr | None = None
    int8_share: float | None = None
    met: bool | None = None
    returned: tuple[ReturnedLayer, ...] = ()
    front: tuple[FrontPoint, ...] = ()


def choose(
    sites: Sites,
    attention: Sequence[AttentionSite],
    samples: SamplesLike,
    recipe: Recipe,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> Choice:
    """Settle how a model is quantized.

    Args:
        sites: its layers.
        attention: op nodes that become INT8.
        samples: calibration images.
        recipe: what is tried, and how far.
        batch_size: images a run at most.
        progress: told what is going on.

    Raises:
        InputError: there are no images, they do not fit the model, or make values that are not finite; the recipe asks
            for the drop of a metric and the images have no labels.
    """
    layers = frozenset(sites.of_output)
    macs, total = _macs(sites)
    share = sum(macs[name] for name in layers) / total if total else None
    counted = _Counted(samples)
    clean_ends = _ends(sites, counted, batch_size, progress) if recipe.searches and layers else {}
    # Evened out, every channel reaches its range, so its ends are taken from all images; and with them the tensor's.
    ranges = {tensor: amax_behind(IDENTITY, ends) for tensor, ends in clean_ends.items()}
    if recipe.observer.kind != "min_max" or attention or not clean_ends:
        counted = _Counted(samples)
        ranges = observe(
            sites.index.model,
            counted,
            sites.sites,
            slices=[part for place in attention for part in place.parts],
            observer=recipe.observer,
            batch_size=batch_size,
            progress=progress,
            index=sites.index,
        ).ranges
    start = Settings(layers, ranges, attention=bool(attention))
    if not recipe.searches:
        return Choice(start, counted.images, int8_share=share)
    runs = recipe.search_runs
    if runs is None:
        runs = min(_clipped(_MULTIPLY_ADDS / total, _RUNS), _RUNS_FOR_EACH * counted.images)
    judged, fitted = _split(samples, runs, _run_size(sites))
    versions = [degraded(batch, _SEEDS[1] + 16 * place) for place, batch in enumerate(judged)]
    trial = Trial(sites, attention, judged, versions if recipe.degrade else ())
    fits = [*fitted]
    if recipe.degrade:
        fits += [degraded(batch, _SEEDS[2] + 16 * place) for place, batch in enumerate(fitted)]
    if not layers:
        alone, both = trial.noise(replace(start, attention=False)), trial.noise(start)
        return Choice(start, counted.images, _snr(alone, recipe), _snr(alone, recipe), _snr(both, recipe), share)
    some = SpreadSamples(samples, _CHANNEL_IMAGES)
    search = Search(
        sites,
        trial,
        fits,
        clean_ends=clean_ends,
        ends=_ends(sites, _Degraded(some), batch_size, progress) if recipe.degrade else {},
        macs=macs,
        total=total,
        recipe=recipe,
        narrowest=lambda settings: _narrowest(sites, settings, samples, recipe, batch_size, progress),
        runs=runs,
        goal=_goal(recipe, samples, trial),
        progress=progress,
    )
    return _choice(search, trial, search.run(ranges), ranges, counted.images, recipe, bool(attention))


def _choice(
    search: Search,
    trial: Trial,
    found: Found,
    ranges: Mapping[str, float],
    images: int,
    recipe: Recipe,
    attention: bool,
) -> Choice:
    points = found.front[:-1]
    gains = {
        point.returned: min(point.clean_db, point.degraded_db) - min(before.clean_db, before.degraded_db)
        for before, point in pairwise(points)
    }
    returned = tuple(
        ReturnedLayer(
            output=name,
            snr_alone_db=round(found.alone_db[name], 2),
            share=round(search.macs[name] / search.total, 6),
            gain_db=round(gains[name], 2),
        )
        for name in (point.returned for point in points)
        if name is not None and name not in found.settings.layers
    )
    # Attention's ranges stand beside those of the layers.
    settings = replace(found.settings, ranges={**ranges, **found.settings.ranges}, attention=attention)
    if found.met is False:
        _log.warning(
            "the target is not met: the best that was found keeps %.1f dB, with %.0f %% of the multiply-adds in INT8. "
            "Lower min_int8_share (%g), or the target",
            found.noise.worse_db,
            100 * search.share(settings),
            recipe.min_int8_share,
        )
    return Choice(
        settings,
        images,
        snr=_snr(found.noise, recipe),
        plain_snr=_snr(found.plain, recipe),
        attention_snr=_snr(trial.noise(settings), recipe) if attention else None,
        int8_share=search.share(settings),
        met=found.met,
        returned=returned,
        front=found.front,
    )


def _snr(noise: Noise, recipe: Recipe) -> Snr:
    return Snr(clean=round(noise.clean_db, 2), degraded=round(noise.degraded_db, 2) if recipe.degrade else None)


def _goal(recipe: Recipe, samples: SamplesLike, trial: Trial) -> Goal | None:
    goals: list[Goal] = []
    if recipe.target_snr_db is not None:
        target = recipe.target_snr_db
        goals.append(lambda _, noise: noise.worse_db >= target)
    if recipe.max_drop is not None:
        goals.append(drop_goal(trial, samples, recipe.max_drop))
    return (lambda settings, noise: all(goal(settings, noise) for goal in goals)) if goals else None


def _macs(sites: Sites) -> tuple[dict[str, float], float]:
    """The multiply-adds of each layer, and of all. By the size of its weight where shapes do not tell."""
    counted = multiply_adds(sites.index.model)
    if any(count is None for count in counted.values()):
        sizes = {name: float(sites.weight(site).size) for name, site in sites.of_output.items()}
        return sizes, sum(sizes.values())
    known = {name: float(count) for name, count in counted.items() if count is not None}
    return {name: known[name] for name in sites.of_output}, sum(known.values())


def _clipped(value: float, ends: tuple[int, int]) -> int:
    return min(max(round(value), ends[0]), ends[1])


def _run_size(sites: Sites) -> int:
    """Images of a run: as many as the model is fixed to."""
    (image,) = fed_inputs(sites.index.model.graph)
    size = image.type.tensor_type.shape.dim[0]
    return int(size.dim_value) if size.HasField("dim_value") else _RUN_SIZE


def _split(samples: SamplesLike, runs: int, size: int = _RUN_SIZE) -> tuple[list[_Images], list[_Images]]:
    """Batches of images that settings are judged by, and of others that are fitted to; of one size each.

    One image in all serves for both.
    """
    wanted = _clipped(runs / _RUNS_PER_IMAGE, _JUDGED)
    fitted = _clipped(1.5 * wanted, _FITTED)
    images = [image for batch in SpreadSamples(samples, wanted + fitted).batches(8) for image in batch.images]
    images = images[: wanted + fitted]
    count = min(wanted, max(1, len(images) * wanted // (wanted + fitted)))
    # Neighbours may be of one class: what is judged comes from all over.
    places = {round((place + 0.5) * len(images) / count - 0.5) for place in range(count)}
    judged = [image for place, image in enumerate(images) if place in places]
    rest = [image for place, image in enumerate(images) if place not in places] or judged
    return _batches(judged, size), _batches(rest, size)


def _batches(images: Sequence[_Images], size: int) -> list[_Images]:
    """The images in batches of one size; a few at the end may be left out."""
    size = min(size, len(images))
    return [np.stack(images[start : start + size]) for start in range(0, len(images) - size + 1, size)]


def _ends(sites: Sites, samples: SamplesLike, batch_size: int, progress: Progress | None) -> dict[str, ChannelRange]:
    return observe_channels(
        sites.index.model, samples, sites.sites, batch_size=batch_size, progress=progress, index=sites.index
    )


def _narrowest(
    sites: Sites, settings: Settings, samples: SamplesLike, recipe: Recipe, batch_size: int, progress: Progress | None
) -> dict[str, float]:
    """For each activation behind its transform the range with the least mean square error over some of the images."""
    moved = MovedModel.of(sites, settings)
    some: SamplesLike = SpreadSamples(samples, _CHANNEL_IMAGES)
    seen = observe(
        moved.index.model,
        _Degraded(some, both=True) if recipe.degrade else some,
        moved.sites,
        observer=ObserverSettings(kind="mse"),
        batch_size=batch_size,
        progress=progress,
        index=moved.index,
    )
    return {name: seen.ranges[moved.renamed.get(name, name)] for name in sites.readers if moved.reads(name)}


class _Counted:
    """Samples, and how many of them were read last."""

    def __init__(self, samples: SamplesLike) -> None:
        self._samples = samples
        self.count = samples.count
        self.images = 0

    def batches(self, batch_size: int) -> Iterator[BatchLike]:
        self.images = 0
        for batch in self._samples.batches(batch_size):
            self.images += len(batch.images)
            yield batch

    def sha256(self) -> str:
        return self._samples.sha256()


class _Degraded:
    """Degraded versions of samples, with ``both`` each batch behind the one that it was made of."""

    def __init__(self, samples: SamplesLike, *, both: bool = False) -> None:
        self._samples = samples
        self._both = both

    @property
    def count(self) -> int | None:
        count = self._samples.count
        return count if count is None or not self._both else 2 * count

    def batches(self, batch_size: int) -> Iterator[BatchLike]:
        for place, batch in enumerate(self._samples.batches(batch_size)):
            if self._both:
                yield batch
            yield _Version(degraded(batch.images, _SEEDS[0] + 16 * place))

    def sha256(self) -> str:
        return self._samples.sha256()


@dataclass(frozen=True)
class _Version:
    images: _Images
