"""Task accuracy on labelled images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.errors import InputError
from edgeformer.runtime.session import Array, Session
from edgeformer.verify.batches import BatchLike, as_batch, input_name

__all__ = ["Accuracy", "correct_top1", "top1_accuracy"]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy: ``correct`` of ``total`` samples."""

    correct: int
    total: int

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return self.correct / self.total

    @property
    def points(self) -> float:
        """From 0 to 100."""
        return 100.0 * self.fraction

    def to_dict(self) -> dict[str, Any]:
        """The accuracy as JSON holds it."""
        return {"correct": self.correct, "total": self.total, "top1": self.fraction}


def correct_top1(logits: Array, labels: npt.NDArray[np.int64]) -> int:
    """Number of samples whose largest logit is the label's; a sample with a NaN or infinity is wrong.

    Args:
        logits: [samples, classes].
        labels: int64 [samples].

    Raises:
        InputError: the shapes do not fit, or a label is no class of the model.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise InputError(
            f"accuracy needs logits [samples, classes] and labels [samples], got {logits.shape}, {labels.shape}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        raise InputError(
            f"labels go from {labels.min()} to {labels.max()}, and the model has {logits.shape[1]} classes"
        )
    clean = np.isfinite(logits.astype(np.float64)).all(axis=1)
    return int(np.count_nonzero(clean & (logits.argmax(axis=1) == labels)))


def top1_accuracy(session: Session, batches: Iterable[BatchLike], *, output: str | None = None) -> Accuracy:
    """Run a classifier over labelled batches, one at a time.

    Args:
        session: the classifier; one input.
        batches: batches with labels.
        output: name of the logits; None takes the only output.

    Raises:
        InputError: a batch has no labels, there is no batch, or the model is no classifier with these classes.
    """
    if output is None and len(session.outputs) != 1:
        raise InputError(f"the model has several outputs ({', '.join(session.outputs)}): say which one has the logits")
    name = next(iter(session.outputs)) if output is None else output
    correct = total = 0
    for item in batches:
        images, labels = as_batch(item)
        if labels is None:
            raise InputError("accuracy needs labelled images, and these have no labels")
        correct += correct_top1(session.run({input_name(session): images})[name], labels)
        total += len(labels)
    if total == 0:
        raise InputError("accuracy needs labelled images, and there are none")
    return Accuracy(correct, total)
