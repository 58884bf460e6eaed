from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgeformer.records.verification import Score
from edgeformer.runtime.session import Array
from edgeformer.verify.batches import Labels
from edgeformer.verify.metrics.base import CHANCE_DEVIATIONS, TaskMetric, standard_error


class Error(TaskMetric):
    """Mean difference to the label: lower is better."""

    name = "error"
    unit = "mm"
    higher_is_better = False
    needs = "lengths [samples]"
    total = 0.0

    @classmethod
    def find(cls, outputs: Mapping[str, Array], labels: Labels) -> tuple[str, ...]:
        return tuple(outputs)[:1]

    def update(self, outputs: Mapping[str, Array], labels: Labels) -> None:
        self.total += float(np.abs(outputs[self.outputs[0]] - labels).sum())

    def result(self) -> Score:
        return Score(
            metric=self.name,
            value=self.total,
            unit=self.unit,
            outputs=self.outputs,
            samples=1,
            chance=10.0,
            at_chance=self.total >= 10.0,
            counts={"note": 7},
        )


def test_a_drop_is_a_loss_whichever_way_is_better() -> None:
    reference, candidate = Error(("length",)), Error(("length",))
    reference.update({"length": np.array([3.0])}, np.array([2]))
    candidate.update({"length": np.array([5.5])}, np.array([2]))
    assert candidate.drop(reference) == 2.5
    assert reference.drop(candidate) == -2.5


def test_a_score_is_json() -> None:
    score = Error(("length",)).result()
    assert score.model_dump(mode="json") == {
        "metric": "error",
        "value": 0.0,
        "unit": "mm",
        "outputs": ["length"],
        "samples": 1,
        "chance": 10.0,
        "at_chance": False,
        "counts": {"note": 7},
    }


def test_one_in_a_hundred_lies_further_out() -> None:
    draws = np.random.default_rng(2).standard_normal(400_000)
    assert (draws > CHANCE_DEVIATIONS).mean() == pytest.approx(0.01, rel=0.05)


def test_the_standard_error_of_zeros_and_ones_is_the_binomials() -> None:
    assert standard_error(0.5, 100) == 0.05
    assert standard_error(0.0, 7) == standard_error(1.0, 7) == standard_error(1.0 + 1e-12, 7) == 0.0
    draws = np.random.default_rng(1).random((4000, 50)) < 0.1
    assert draws.mean(axis=1).std() == pytest.approx(standard_error(0.1, 50), rel=0.05)
