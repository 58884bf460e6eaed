"""Top-1 accuracy of a classifier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from edgeformer.errors import InputError
from edgeformer.records.verification import Score
from edgeformer.runtime.session import Array, Session
from edgeformer.verify.batches import BatchLike, Labels, as_batch, input_name
from edgeformer.verify.metrics.base import CHANCE_RISK, TaskMetric

__all__ = ["Top1", "correct_top1", "top1_accuracy"]


def correct_top1(logits: Array, labels: Labels) -> int:
    """Number of samples whose largest logit is the label's; a sample with a NaN or infinity is wrong.

    Args:
        logits: [samples, classes].
        labels: integers [samples].

    Raises:
        InputError: the shapes do not fit, or a label is not a class of the model.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise InputError(
            "EF821",
            f"accuracy needs logits [samples, classes] and labels [samples], got {logits.shape}, {labels.shape}",
        )
    if labels.size and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        raise InputError(
            "EF822",
            f"labels go from {labels.min()} to {labels.max()}, and the model has {logits.shape[1]} classes: expected "
            f"0 to {logits.shape[1] - 1}",
        )
    clean = np.isfinite(logits.astype(np.float64)).all(axis=1)
    return int(np.count_nonzero(clean & (logits.argmax(axis=1) == labels)))


def _at_least(hits: int, draws: int, probability: float) -> float:
    """The probability of ``hits`` or more of ``draws`` (the binomial distribution's upper tail)."""
    if hits <= 0 or probability >= 1.0:
        return 1.0
    log_hit, log_miss = math.log(probability), math.log1p(-probability)
    # Each term by its logarithm: the factorials leave every floating-point range.
    logs = [
        math.lgamma(draws + 1) - math.lgamma(k + 1) - math.lgamma(draws - k + 1) + k * log_hit + (draws - k) * log_miss
        for k in range(hits, draws + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


class Top1(TaskMetric):
    """The share of samples whose largest logit is that of their label.

    Chance is one over the number of classes. A model is at chance where guessing would be right as often, or more
    often, with a probability above `CHANCE_RISK` (exact, by the binomial distribution).
    """

    name = "top-1 accuracy"
    needs = "logits [samples, classes] and labels [samples]"

    def __init__(self, outputs: tuple[str, ...]) -> None:
        """As in `TaskMetric`; one output."""
        super().__init__(outputs)
        self._correct = self._total = self._classes = 0

    @classmethod
    def find(cls, outputs: Mapping[str, Array], labels: Labels) -> tuple[str, ...]:
        """The first output of logits [samples, classes], where there is a label per sample."""
        if labels.ndim != 1:
            return ()
        fitting = (name for name, array in outputs.items() if array.dtype.kind == "f" and array.ndim == 2)
        return tuple(name for name in fitting if outputs[name].shape[1] >= 2)[:1]

    def update(self, outputs: Mapping[str, Array], labels: Labels) -> None:
        """Add a batch: logits [samples, classes] and labels [samples]. Raises InputError where they do not fit."""
        logits = outputs[self.outputs[0]]
        self._correct += correct_top1(logits, labels)
        self._total += len(labels)
        self._classes = logits.shape[1]

    def result(self) -> Score:
        """Points, with the counts ``correct`` and ``total``, and the fraction ``top1``."""
        if not self._total:
            raise InputError("EF823", "accuracy needs labelled images, and there are none")
        chance = 1.0 / self._classes
        return Score(
            metric=self.name,
            value=100.0 * self._correct / self._total,
            unit=self.unit,
            outputs=self.outputs,
            samples=self._total,
            chance=100.0 * chance,
            at_chance=_at_least(self._correct, self._total, chance) > CHANCE_RISK,
            counts={"correct": self._correct, "total": self._total, "top1": self._correct / self._total},
        )

    def drop(self, reference: TaskMetric) -> float:
        """As in `TaskMetric`; exact where both saw the same samples, so that a loss of 1 point is exactly 1."""
        if isinstance(reference, Top1) and reference._total == self._total:
            return 100.0 * (reference._correct - self._correct) / self._total
        return super().drop(reference)


def top1_accuracy(session: Session, batches: Iterable[BatchLike], *, output: str | None = None) -> Score:
    """Run a classifier over labelled batches, one at a time.

    Args:
        session: the classifier; one input.
        batches: batches with labels.
        output: name of the logits; None takes the only output.

    Raises:
        InputError: a batch has no labels, there is no batch, or the model is not a classifier with these classes.
    """
    if output is None and len(session.outputs) != 1:
        raise InputError(
            "EF103",
            f"the model has several outputs ({', '.join(session.outputs)}): name the one with logits as output=",
        )
    metric = Top1((next(iter(session.outputs)) if output is None else output,))
    for item in batches:
        images, labels = as_batch(item)
        if labels is None:
            raise InputError("EF823", "accuracy needs labelled images, and these have no labels")
        metric.update(session.run({input_name(session): images}), labels)
    return metric.result()
