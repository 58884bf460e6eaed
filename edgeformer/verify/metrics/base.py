"""What a task metric is: a figure of how good a model's outputs are, measured with labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from statistics import NormalDist
from typing import ClassVar

from edgeformer.records.verification import Score
from edgeformer.runtime.session import Array
from edgeformer.verify.batches import Labels

__all__ = ["CHANCE_DEVIATIONS", "CHANCE_RISK", "TaskMetric", "standard_error"]

# The probability that a model which only guesses is taken for a better one.
CHANCE_RISK = 0.01
# The same as a number of standard errors above chance, for a figure that is normally distributed.
CHANCE_DEVIATIONS = NormalDist().inv_cdf(1.0 - CHANCE_RISK)


def standard_error(mean: float, samples: int) -> float:
    """The largest value that the standard error of a mean of ``samples`` figures from 0 to 1 can have.

    The variance of a figure from 0 to 1 whose mean is ``mean`` is at most ``mean * (1 - mean)`` (Bhatia and Davis, A
    better bound on the variance, 2000).
    """
    return float((max(mean * (1.0 - mean), 0.0) / samples) ** 0.5)


class TaskMetric(ABC):
    """A task metric over batches of outputs and labels.

    A new one is a file in `edgeformer.verify.metrics` with a subclass, and its name in that package's ``METRICS``.

    Attributes:
        name: what it is called.
        unit: of its figure.
        higher_is_better: whether a higher figure is a better one.
        needs: the labels and outputs that it takes, for people who gave others.
        outputs: the names of the outputs that it judges.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "points"
    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[str]

    def __init__(self, outputs: tuple[str, ...]) -> None:
        """Start with nothing seen.

        Args:
            outputs: the outputs to judge, as `find` named them.
        """
        self.outputs = outputs

    @classmethod
    @abstractmethod
    def find(cls, outputs: Mapping[str, Array], labels: Labels) -> tuple[str, ...]:
        """The outputs that this metric judges with such labels; empty where it judges none of them.

        Args:
            outputs: a batch of outputs by name.
            labels: the labels of the batch.
        """

    @abstractmethod
    def update(self, outputs: Mapping[str, Array], labels: Labels) -> None:
        """Add a batch.

        Args:
            outputs: by name, [samples, ...] each; the metric's own among them.
            labels: integers [samples, ...].

        Raises:
            InputError: the shapes do not fit, or a label is not a class of the model.
        """

    @abstractmethod
    def result(self) -> Score:
        """The figure over all batches so far.

        Raises:
            InputError: there was no labelled sample.
        """

    def drop(self, reference: TaskMetric) -> float:
        """How much worse this is than ``reference``, in the metric's unit; below zero where it is better."""
        loss = reference.result().value - self.result().value
        return loss if self.higher_is_better else -loss
