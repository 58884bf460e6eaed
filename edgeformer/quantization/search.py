"""Choosing how a model is quantized by what it does to the network's own outputs.

Every step - a transform of an activation, its range, GPTQ, corrected biases - is tried on images that nothing was
fitted to, as they are and degraded, and kept only where the outputs gain by it. What a layer reads is chosen with its
readers alone in INT8, where their error is not lost among that of others; all else on the whole network.

Then layers return to float, those first that buy the most for their multiply-adds: the front of error against INT8
share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgeformer.graph.qdq import LayerSite
from edgeformer.progress import Progress
from edgeformer.quantization.calibration import ChannelRange
from edgeformer.quantization.recipe import Recipe
from edgeformer.quantization.rounding import moments, rounded_weight
from edgeformer.quantization.settings import IDENTITY, Settings, Sites, Transform
from edgeformer.quantization.smoothquant import amax_behind, candidates, is_free
from edgeformer.quantization.trial import Noise, Trial
from edgeformer.records.quantization import FrontPoint

__all__ = ["Found", "Goal", "Search"]

_Images = Sequence[npt.NDArray[np.float32]]

# dB that a step has to gain to be kept; less is luck of the images.
_GAIN_DB = 0.05
# The same for one activation's transform that takes a multiply and an add at run time, with its readers alone in INT8.
_PAID_GAIN_DB = 1.0
# dB that a layer's return has to gain for each percent of the multiply-adds that it takes from INT8.
_WORTH_DB = 0.05
# Layers that may return in a row without a gain before the walk ends.
_PATIENCE = 3
# Factors of its range that an activation is tried with once weights are rounded.
_FINE = (0.95, 1.05)
# Share of the runs that choosing what layers read may use; the rest is for the whole network.
_ALONE = 0.6

# Whether settings are good enough, by their noise; None asks for the best trade.
Goal = Callable[[Settings, Noise], bool]


@dataclass(frozen=True)
class Found:
    """What the search settled on.

    Attributes:
        settings: how the model is quantized.
        noise: of it.
        plain: of the same layers with the ranges given, rounded to the nearest, and nothing else.
        alone_db: layer output -> SNR of the outputs with the readers of its activation alone in INT8.
        front: the trade of error and INT8 share; the first point has every layer in INT8.
        met: whether the goal was met; None where there was none.
    """

    settings: Settings
    noise: Noise
    plain: Noise
    alone_db: Mapping[str, float]
    front: tuple[FrontPoint, ...]
    met: bool | None = None


@dataclass
class Search:
    """The search over one model.

    Attributes:
        sites: its layers.
        trial: the model on the images that settings are judged by.
        fits: batches of other images, as they are and degraded, that biases and weights are fitted to.
        clean_ends: activation -> the ends of its channels, over images as they are.
        ends: the same over degraded versions of them; may be empty.
        macs: layer output -> its multiply-adds for an image.
        total: multiply-adds of the whole network for an image.
        recipe: what is tried.
        narrowest: activation -> the range with the least mean square error over many images, under the transforms of
            some settings. A range below it cuts off what the few images that settings are judged by may not show.
        runs: of the whole network on one image, that the search may take.
        goal: stops the return of layers.
        progress: told how much of the runs is used.
    """

    sites: Sites
    trial: Trial
    fits: _Images
    clean_ends: Mapping[str, ChannelRange]
    ends: Mapping[str, ChannelRange]
    macs: Mapping[str, float]
    total: float
    recipe: Recipe
    narrowest: Callable[[Settings], Mapping[str, float]]
    runs: float
    goal: Goal | None = None
    progress: Progress | None = None
    _alone: dict[str, float] = field(default_factory=dict)
    _plain: Settings = field(default_factory=lambda: Settings(frozenset(), {}))

    def run(self, ranges: Mapping[str, float]) -> Found:
        """Search, from the ranges that the recipe's observer gives for activations without a transform."""
        self._plain = Settings(frozenset(self.sites.of_output), dict(ranges))
        points = list(self._walk(self._tuned()))
        settings, noise, plain, met = self._finish(points)
        front = [self._point(point) for point in points]
        returned = len(self._plain.layers) - len(settings.layers)
        last = self._point(_Point(front[returned].returned, settings, noise)).model_copy(update={"finished": True})
        return Found(settings, noise, plain, self._alone, (*front, last), met)

    # What layers read.

    def _tuned(self) -> Settings:
        """All layers in INT8, with what each reads chosen."""
        settings = self._plain
        if not (self.recipe.balance or self.recipe.choose_ranges or self._may_return):
            return settings
        limit = self.trial.runs + _ALONE * self.runs
        for tensor in self._by_harm(limit):
            if self.trial.runs >= limit:
                break
            settings = self._chosen(tensor, settings)
            self._tell()
        before, after = self.trial.noise(self._plain), self.trial.noise(settings)
        return settings if _better(after, before) else self._plain

    @property
    def _may_return(self) -> bool:
        return self.recipe.min_int8_share < 1 or self.goal is not None

    def _by_harm(self, limit: float) -> Iterator[str]:
        """The activations, those of the group first whose layers do the most harm together."""
        tensors = list(self.sites.readers)
        size = math.ceil(math.sqrt(len(tensors)))
        groups = [tensors[start : start + size] for start in range(0, len(tensors), size)]
        harm = []
        for group in groups:
            outputs = [site.output for tensor in group for site in self.sites.readers[tensor]]
            harm.append(self._only(outputs, self._plain).typical_db if self.trial.runs < limit else math.inf)
        for _, group in sorted(zip(harm, groups, strict=True), key=lambda pair: pair[0]):
            yield from group

    def _chosen(self, tensor: str, settings: Settings) -> Settings:
        """The settings with the transform and the range of one activation with which its readers do the least harm."""
        outputs = [site.output for site in self.sites.readers[tensor]]
        noise = self._only(outputs, settings)
        best = _Choice(IDENTITY, settings.ranges[tensor], noise, noise.typical_db)
        for choice in self._choices(tensor, outputs, settings):
            if choice.value > best.value + (_GAIN_DB if best.transform == choice.transform else 0):
                best = choice
        self._alone |= dict.fromkeys(outputs, best.noise.worse_db)
        return settings.with_transform(tensor, best.transform, best.amax, outputs)

    def _choices(self, tensor: str, outputs: Sequence[str], settings: Settings) -> Iterator[_Choice]:
        clean, seen = self.clean_ends[tensor], self.ends.get(tensor)
        seen = clean if seen is None else _joined(clean, seen)
        # The observer saw more images, and may have left the ends out: what it made of the range that these here have,
        # it makes of that behind a transform.
        plain = amax_behind(IDENTITY, clean)
        share = settings.ranges[tensor] / plain if plain > 0 else 1.0
        transforms = [IDENTITY] if self.recipe.choose_ranges else []
        transforms += candidates(self.sites, tensor, seen) if self.recipe.balance else []
        for transform in transforms:
            yield self._tried(tensor, outputs, settings, transform, share * amax_behind(transform, seen))

    def _tried(
        self, tensor: str, outputs: Sequence[str], settings: Settings, transform: Transform, amax: float
    ) -> _Choice:
        noise = self._only(outputs, settings.with_transform(tensor, transform, amax, outputs))
        paid = transform.moves and not is_free(self.sites, tensor)
        return _Choice(transform, amax, noise, noise.typical_db - (_PAID_GAIN_DB if paid else 0))

    def _only(self, outputs: Iterable[str], settings: Settings) -> Noise:
        return self.trial.noise(replace(settings, layers=frozenset(outputs)), self.trial.batches // 2 or 1)

    # Which layers stay INT8.

    def _walk(self, settings: Settings) -> Iterator[_Point]:
        """The settings, and those without one layer after the other, down to the share that stays INT8.

        A layer's return may show little before that of the next: what is worth it is told once the walk is done.
        """
        point = _Point(None, settings, self.trial.noise(settings))
        yield point
        if not self._may_return:
            return
        known = [name for name in self._alone if self.macs[name] > 0]
        # Noise that a layer makes, for each multiply-add that it keeps in INT8.
        known.sort(key=lambda name: -(10 ** (-self._alone[name] / 10)) / self.macs[name])
        limit = self.trial.runs + (1 - _ALONE) * self.runs / 2
        useless = 0
        for name in known:
            if self.trial.runs >= limit or useless == _PATIENCE:
                return
            less = point.settings.without([name])
            if self.share(less) < self.recipe.min_int8_share:
                continue
            before, point = point, _Point(name, less, self.trial.noise(less))
            useless = useless + 1 if _quality(point.noise) < _quality(before.noise) + _GAIN_DB else 0
            self._tell()
            yield point

    def share(self, settings: Settings) -> float:
        """The share of the network's multiply-adds that is INT8."""
        return sum(self.macs[name] for name in settings.layers) / self.total

    def _worth(self, point: _Point) -> float:
        """What a point is worth in dB: its outputs, and the multiply-adds that it leaves in INT8."""
        return _quality(point.noise) + _WORTH_DB * 100 * self.share(point.settings)

    def _point(self, point: _Point) -> FrontPoint:
        return FrontPoint(
            returned=point.returned,
            int8_share=round(self.share(point.settings), 6),
            clean_db=round(point.noise.clean_db, 2),
            degraded_db=round(point.noise.degraded_db, 2),
        )

    # Weights and biases.

    def _finish(self, points: Sequence[_Point]) -> tuple[Settings, Noise, Noise, bool | None]:
        """The point that the goal asks for, or the best trade; weights rounded and biases corrected."""
        if self.goal is None:
            return *self._finished(max(points, key=self._worth).settings), None
        # The fewest returns that do. Each helps or nearly so, which is all that bisection needs.
        too_few, enough = 0, len(points) - 1
        best = self._finished(points[too_few].settings)
        if self.goal(best[0], best[1]):
            return *best, True
        best = self._finished(points[enough].settings)
        met = self.goal(best[0], best[1])
        while met and enough - too_few > 1:
            middle = (too_few + enough) // 2
            found = self._finished(points[middle].settings)
            if self.goal(found[0], found[1]):
                best, enough = found, middle
            else:
                too_few = middle
        return *best, met

    def _finished(self, settings: Settings) -> tuple[Settings, Noise, Noise]:
        """The settings with weights and biases as they serve the outputs best; their noise, and that of plain ones."""
        plain = replace(self._plain, layers=settings.layers)
        narrowest: Mapping[str, float] = {}
        if self.recipe.choose_ranges:
            narrowest = self.narrowest(settings)
            settings = self._narrowed(settings, lambda tensor, _: [narrowest[tensor]])
        tried = [plain, settings]
        if self.fits and self.recipe.round_weights:
            seen = moments(self.sites, settings, self.fits, sum(map(len, self.fits)))
            self.trial.runs += sum(map(len, self.fits))
            for scales in ("min_max", "mse"):
                tried.append(
                    replace(
                        settings,
                        weights={
                            name: rounded_weight(self.sites, self.sites.of_output[name], settings, one, scales=scales)
                            for name, one in seen.items()
                        },
                    )
                )
        limit = self.trial.runs + (1 - _ALONE) * self.runs / 4
        floor = self.trial.noise(plain)
        best, noise = plain, floor
        for candidate in tried[1:]:
            best, noise = self._kept(candidate, best, noise, floor)
        if self.fits and self.recipe.correct_bias:
            # That of the best first: there may be no runs left for the others.
            for candidate in sorted(tried[1:], key=lambda one: one is not best):
                if self.trial.runs >= limit and candidate is not best:
                    break
                best, noise = self._kept(self.trial.corrected(candidate, self.fits), best, noise, floor)
                self._tell()
        if self.recipe.choose_ranges and best is not plain:
            fine = self._narrowed(
                best, lambda tensor, amax: [max(factor * amax, narrowest.get(tensor, amax)) for factor in _FINE]
            )
            best, noise = self._kept(fine, best, noise, floor)
        return best, noise, floor

    def _narrowed(self, settings: Settings, others: Callable[[str, float], Sequence[float]]) -> Settings:
        """The settings with other ranges of activations, those first whose readers do the most harm.

        Args:
            settings: to begin with.
            others: gives, for an activation and its range, those to be tried.
        """
        tensors = [name for name, readers in self.sites.readers.items() if _any_in(readers, settings)]
        tensors.sort(key=lambda name: min(self._alone.get(site.output, math.inf) for site in self.sites.readers[name]))
        limit = self.trial.runs + (1 - _ALONE) * self.runs / 4
        noise = self.trial.noise(settings)
        self.trial.settle(settings)
        for tensor in tensors:
            for amax in others(tensor, settings.ranges[tensor]):
                if self.trial.runs >= limit:
                    return settings
                if amax == settings.ranges[tensor]:
                    continue
                tried = replace(settings, ranges={**settings.ranges, tensor: amax})
                found = self.trial.noise(tried)
                if found.worse_db >= noise.worse_db and _better(found, noise):
                    settings, noise = tried, found
                    self.trial.settle(settings)
            self._tell()
        return settings

    def _kept(self, candidate: Settings, best: Settings, noise: Noise, floor: Noise) -> tuple[Settings, Noise]:
        """The better of two settings; none that loses to plain rounding on either kind of images."""
        found = self.trial.noise(candidate)
        keeps = found.clean_db >= floor.clean_db and found.degraded_db >= floor.degraded_db
        return (candidate, found) if keeps and _better(found, noise) else (best, noise)

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress("choosing by the outputs", min(int(self.trial.runs), int(self.runs)), int(self.runs))


@dataclass(frozen=True)
class _Choice:
    """What an activation was tried with, the noise of that, and what it is worth in dB."""

    transform: Transform
    amax: float
    noise: Noise
    value: float


@dataclass(frozen=True)
class _Point:
    """Settings on the walk, the layer that returned last, and their noise."""

    returned: str | None
    settings: Settings
    noise: Noise


def _quality(noise: Noise) -> float:
    """DB of settings: of all images together, which few of them decide, and of most of them, half each."""
    return (noise.typical_db + noise.mean_db) / 2


def _better(found: Noise, than: Noise) -> bool:
    """Whether settings gain by more than luck."""
    return _quality(found) > _quality(than) + _GAIN_DB


def _joined(one: ChannelRange, other: ChannelRange) -> ChannelRange:
    """The ends of channels over two sets of images."""
    return ChannelRange(
        minimum=tuple(map(min, one.minimum, other.minimum)), maximum=tuple(map(max, one.maximum, other.maximum))
    )


def _any_in(readers: Iterable[LayerSite], settings: Settings) -> bool:
    return any(site.output in settings.layers for site in readers)
