"""Mean intersection over union of a segmentation model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeformer.errors import InputError
from edgeformer.records.verification import Score
from edgeformer.runtime.session import Array
from edgeformer.verify.batches import Labels
from edgeformer.verify.metrics.base import CHANCE_DEVIATIONS, TaskMetric, standard_error

__all__ = ["IGNORED", "MeanIoU"]

# Pixels with this label belong to no class: they count neither as hit nor as miss (as in ADE20K).
IGNORED = 255
# Pairs of classes are counted in a table: a map that holds something else than classes would make it huge.
_MOST_CLASSES = 4096
# What a pixel is predicted as where a logit is NaN or infinite: a miss of its own class, a hit of none.
_NOTHING = -1


class MeanIoU(TaskMetric):
    """Intersection over union, its mean over the classes that occur in labels or predictions; pixel accuracy beside it.

    Pixels are summed over the whole set before anything is divided. Labels of `IGNORED` are left out.

    Chance is what these predictions would come to if they had nothing to do with the labels: with shares p of the
    predicted and f of the labelled pixels, a class would have the intersection p f and the union p + f - p f. A model
    that gives one class everywhere is exactly there. The pixels of an image are not independent draws, so that the
    sampling error is that of as many draws as there are images, at its largest (`standard_error`): a model is at chance
    where its figure is no more than `CHANCE_DEVIATIONS` such errors above it.
    """

    name = "mean IoU"
    needs = "logits [samples, classes, H, W] or a map of classes [samples, H, W], and labels [samples, H, W]"

    def __init__(self, outputs: tuple[str, ...]) -> None:
        """As in `TaskMetric`; one output."""
        super().__init__(outputs)
        self._images = 0
        # Rows are labels; columns are predictions, the last one for pixels that were predicted as nothing.
        self._confusion = np.zeros((0, 1), np.int64)

    @classmethod
    def find(cls, outputs: Mapping[str, Array], labels: Labels) -> tuple[str, ...]:
        """The first output of logits or classes of the labels' size."""
        return tuple(name for name, array in outputs.items() if _fits(array, labels))[:1]

    def update(self, outputs: Mapping[str, Array], labels: Labels) -> None:
        """Add a batch.

        Args:
            outputs: logits [samples, classes, H, W], or integers [samples, H, W].
            labels: integers [samples, H, W].

        Raises:
            InputError: the shapes do not fit, or a label is not a class of the model (where the output tells its
                classes).
        """
        array = outputs[self.outputs[0]]
        if not _fits(array, labels):
            raise InputError(
                "EF821",
                f"{self.name} needs {self.needs}, got {array.dtype.name} {list(array.shape)} and {list(labels.shape)}",
            )
        counted = labels != IGNORED
        wanted = labels[counted].astype(np.int64)
        predicted = _classes(array)[counted]
        self._images += len(labels)
        if not wanted.size:
            return
        known = array.shape[1] if array.ndim == 4 else None
        if wanted.min() < 0 or (known is not None and wanted.max() >= known):
            raise InputError(
                "EF822",
                f"labels go from {wanted.min()} to {wanted.max()}"
                + (f", and the model has {known} classes" if known is not None else ": classes are counted from 0")
                + f"; pixels without a class have the label {IGNORED}",
            )
        lowest, highest = (0 if known is None else _NOTHING), max(int(wanted.max()), int(predicted.max()))
        if predicted.min() < lowest or highest >= _MOST_CLASSES:
            raise InputError(
                "EF822",
                f"output {self.outputs[0]!r} and the labels have classes from {min(wanted.min(), predicted.min())} to "
                f"{highest}: expected classes from 0 to {_MOST_CLASSES - 1}",
            )
        self._add(wanted, predicted, known or 0)

    def result(self) -> Score:
        """Points, with ``pixel_accuracy`` in points and the number of ``classes`` that the mean is over."""
        pixels = int(self._confusion.sum())
        if not pixels:
            raise InputError("EF823", f"{self.name} needs labelled pixels, and there are none")
        confusion = self._confusion.astype(np.float64) / pixels
        labelled = confusion.sum(axis=1)
        predicted = confusion[:, :-1].sum(axis=0)
        hits = np.diagonal(confusion)
        unions = labelled + predicted - hits
        there = unions > 0
        value = float(np.mean(hits[there] / unions[there]))
        # Without any tie between the two, a class is hit in the product of its shares.
        blind = labelled * predicted
        chance = float(np.mean((blind / np.where(there, labelled + predicted - blind, 1.0))[there]))
        allowed = CHANCE_DEVIATIONS * standard_error(chance, self._images)
        return Score(
            metric=self.name,
            value=100.0 * value,
            unit=self.unit,
            outputs=self.outputs,
            samples=self._images,
            chance=100.0 * chance,
            at_chance=value <= chance + allowed,
            counts={"pixel_accuracy": 100.0 * float(hits.sum()), "classes": int(there.sum()), "pixels": pixels},
        )

    def _add(self, wanted: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], known: int) -> None:
        """Count pairs of classes; the table grows with the classes that are seen."""
        size = max(known, len(self._confusion), int(wanted.max()) + 1, int(predicted.max()) + 1)
        if size > len(self._confusion):
            grown = np.zeros((size, size + 1), np.int64)
            before = len(self._confusion)
            grown[:before, :before] = self._confusion[:, :-1]
            grown[:before, -1] = self._confusion[:, -1]
            self._confusion = grown
        columns = np.where(predicted == _NOTHING, size, predicted)
        counts = np.bincount(wanted * (size + 1) + columns, minlength=size * (size + 1))
        self._confusion += counts.reshape(size, size + 1)


def _fits(array: Array, labels: Labels) -> bool:
    if labels.ndim != 3:
        return False
    if array.dtype.kind == "f":
        return array.ndim == 4 and array.shape[1] >= 2 and array.shape[:1] + array.shape[2:] == labels.shape
    return array.dtype.kind in "iu" and array.shape == labels.shape


def _classes(array: Array) -> npt.NDArray[np.int64]:
    """The class of each pixel, [samples, H, W]."""
    if array.dtype.kind != "f":
        # Beyond int64 a class would become another one: clipped it is refused like every class that is too high.
        exact = np.minimum(array, np.uint64(np.iinfo(np.int64).max)) if array.dtype == np.uint64 else array
        return exact.astype(np.int64)
    clean = np.isfinite(array).all(axis=1)
    return np.where(clean, array.argmax(axis=1), _NOTHING).astype(np.int64)
