"""What is kept of the forms' runs while they are compared: recorded outputs for the device, and where regions look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer.records.routing import RoutedBlock, RoutedQuery, RoutingPicture
from edgeformer.runtime.session import Array, Session, TensorInfo

if TYPE_CHECKING:
    from edgeformer.verify import Form, RoutingOutput
    from edgeformer.verify.forms import OpenForm

__all__ = ["Recorder", "RoutingWatch"]

# Images whose outputs the bundle records, for the device to compare with.
_RECORDED_IMAGES = 8


class Recorder:
    """Keeps what a form was given first and what it gave, while it runs for the comparison."""

    def __init__(self) -> None:
        self._runs: list[dict[str, Array]] = []
        self._count = 0

    def over(self, form: Form) -> Form:
        """The form, watched."""
        return _watched(form, self._add)

    def _add(self, form: OpenForm, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Keep a run, unless there are enough."""
        if self._count < _RECORDED_IMAGES:
            # A typed graph takes floats as float32; what it is given is what the reference was given.
            given = {
                name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in feeds.items()
            }
            own = {name: outputs[name] for name in form.outputs}
            self._runs.append(_prefixed("input", given) | _prefixed("output", own))
            self._count += min(map(len, feeds.values()))

    def save(self, path: Path, images: Callable[[int], Array]) -> None:
        """Write the first runs.

        Args:
            path: the file.
            images: gives at most so many of the images that were run: what comes behind them may be copies that fill
                up a fixed batch.
        """
        count = len(images(_RECORDED_IMAGES))
        arrays: dict[str, Any] = {
            name: np.concatenate([run[name] for run in self._runs])[:count] for name in self._runs[0]
        }
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}:{name}": array for name, array in arrays.items()}


@dataclass
class _Seen:
    """The routing of a form on the images that are recorded: ``[images, regions, topk]`` for each of its decisions."""

    decisions: tuple[RoutingOutput, ...]
    regions: list[Array] = field(default_factory=list)

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Keep a run, unless there are enough."""
        have = len(self.regions[0]) if self.regions else 0
        if have < _RECORDED_IMAGES:
            new = [np.array(outputs[decision.name][: _RECORDED_IMAGES - have]) for decision in self.decisions]
            pairs = zip(self.regions, new, strict=True)
            self.regions = [np.concatenate(pair) for pair in pairs] if self.regions else new


class RoutingWatch:
    """Keeps where regions look in each form that is watched and shows its routing, on the images that are recorded."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def over(self, form: Form) -> Form:
        """The form, watched."""

        def add(opened: OpenForm, _: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
            if opened.routing:
                self._seen.setdefault(form.name, _Seen(opened.routing)).add(outputs)

        return _watched(form, add)

    def picture(self, reference: str, typed: str, images: int) -> RoutingPicture | None:
        """Of the image on which two forms differ most, and of each stage the block in which they do.

        Args:
            reference: name of the form to agree with.
            typed: name of the other form; both were watched.
            images: how many of the images count: what comes behind them may be copies.

        Returns:
            The picture; None where no block of both routes, or each region attends to all.
        """
        if not {reference, typed} <= self._seen.keys():
            return None
        first, second = self._seen[reference], self._seen[typed]
        drawn = [
            (decision, want[:images], have[:images])
            for decision, want, have in zip(first.decisions, first.regions, second.regions, strict=True)
            if _can_be_drawn(want, have)
        ]
        if not drawn:
            return None
        sample = int(np.argmax(sum(_differing(want, have).astype(bool).sum(axis=1) for _, want, have in drawn)))
        shown: dict[int | None, RoutedBlock] = {}
        for decision, want, have in drawn:
            block = _routed_block(decision, want[sample], have[sample])
            best = shown.setdefault(decision.stage, block)
            if block.changed > best.changed:
                shown[decision.stage] = block
        return RoutingPicture(sample=sample, blocks=tuple(shown.values()))


def _can_be_drawn(want: Array, have: Array) -> bool:
    """Whether the regions are a square, and not each attends to all of them."""
    if want.ndim != 3 or want.shape != have.shape:
        return False
    _, regions, topk = want.shape
    return bool(math.isqrt(regions) ** 2 == regions and topk < regions)


def _differing(want: Array, have: Array) -> Array:
    """How many of the regions that each region attends to the other form does not attend to, ``[..., regions]``."""
    return np.asarray((want[..., :, None] != have[..., None, :]).all(axis=-1).sum(axis=-1))


def _routed_block(decision: RoutingOutput, want: Array, have: Array) -> RoutedBlock:
    """Two regions of a block, whose routing is ``[regions, topk]``."""
    side = math.isqrt(len(want))
    want, have = np.sort(want, axis=1), np.sort(have, axis=1)
    differing = _differing(want, have)
    # The middle of the image, and the region that differs most; where none does, one in the upper left quarter.
    middle = side // 2 * side + side // 2
    other = int(differing.argmax()) if differing.any() else side // 4 * side + side // 4
    queries = tuple(
        RoutedQuery(region=region, reference=tuple(map(int, want[region])), typed=tuple(map(int, have[region])))
        for region in dict.fromkeys((middle, other))
    )
    return RoutedBlock(
        stage=decision.stage,
        block=decision.block,
        side=side,
        changed=int(np.count_nonzero(differing)),
        queries=queries,
    )


_Watcher = Callable[["OpenForm", Mapping[str, Array], Mapping[str, Array]], None]


def _watched(form: Form, watcher: _Watcher) -> Form:
    """A form that shows each run, feeds and all outputs by name, to ``watcher``."""

    @contextmanager
    def opener() -> Iterator[OpenForm]:
        with form.opened() as opened:
            yield replace(opened, session=_Watched(opened, watcher))

    return replace(form, opener=opener)


class _Watched(Session):
    """A form's session that shows each run; whoever opened the session closes it."""

    def __init__(self, form: OpenForm, watcher: _Watcher) -> None:
        self._form = form
        self._watcher = watcher

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        return self._form.session.inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        return self._form.session.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._form.session.run(feeds)
        self._watcher(self._form, feeds, outputs)
        return outputs

    def close(self) -> None:
        pass
