"""What INT8 costs in top-1 accuracy on labelled images, with a margin for how few of them say so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.errors import InputError
from edgeformer.quantization.search import Goal
from edgeformer.quantization.settings import Settings
from edgeformer.quantization.streaming import SamplesLike
from edgeformer.quantization.trial import Noise, Trial

__all__ = ["drop_goal", "largest_drop"]

_BATCH_SIZE = 8
# Of the normal distribution: a drop beyond the margin is seen in 5 of 100 cases.
_ONE_SIDED_95 = 1.645


def largest_drop(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> float:
    """Points of accuracy that were lost at most, at 95 % confidence.

    The images are the same, so only those count that changed: with ``l`` lost and ``w`` won of ``n``, the drop is
    ``(l - w) / n``, and its standard error ``sqrt(l + w + 1) / n``, one image more than were seen to change.

    Args:
        before: ``[N]``, whether each image was classified rightly.
        after: the same with INT8.
    """
    lost = int((before & ~after).sum())
    won = int((~before & after).sum())
    return 100 * (lost - won + _ONE_SIDED_95 * math.sqrt(lost + won + 1)) / len(before)


def drop_goal(trial: Trial, samples: SamplesLike, max_drop: float) -> Goal:
    """Whether settings lose at most so many points of top-1 accuracy on the samples.

    Args:
        trial: the model.
        samples: labelled.
        max_drop: in points.

    Raises:
        InputError: the samples have no labels, or the model has no output ``[N, classes]``.
    """
    labelled = list(_labelled(samples))
    right = [_right(trial, Settings(frozenset(), {}), *batch) for batch in labelled]
    before = np.concatenate(right)

    def goal(settings: Settings, _: Noise) -> bool:
        after = np.concatenate([_right(trial, settings, *batch) for batch in labelled])
        return largest_drop(before, after) <= max_drop

    return goal


def _labelled(samples: SamplesLike) -> Any:
    for batch in samples.batches(_BATCH_SIZE):
        labels = getattr(batch, "labels", None)
        if labels is None:
            raise InputError(
                "EF572",
                "max_drop is judged on the calibration images, and these have no labels: give a folder with a "
                "sub-folder for each class or an .npz file with labels, or a target_snr_db in its place",
            )
        yield batch.images, labels


def _right(
    trial: Trial, settings: Settings, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    outputs = trial.outputs(settings, images)
    if len(outputs) != 1 or next(iter(outputs.values())).ndim != 2:
        shapes = ", ".join(f"{name!r} {list(value.shape)}" for name, value in outputs.items())
        raise InputError(
            "EF573",
            f"max_drop is of top-1 accuracy, which needs one output [images, classes]; this model has {shapes}: give "
            "target_snr_db in its place",
        )
    (scores,) = outputs.values()
    return np.asarray(scores[: len(labels)].argmax(axis=1) == labels)
