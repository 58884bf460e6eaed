from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeformer.verify.metrics.classification import Top1, correct_top1, top1_accuracy
from tests.raising import raises
from tests.verify.conftest import FunctionSession, Labelled


def identity(**options: Any) -> FunctionSession:
    return FunctionSession(lambda x: x, **options)


def test_accuracy_over_batches() -> None:
    eye = np.eye(3, dtype=np.float32)
    batches = [Labelled(eye, np.array([0, 1, 0])), Labelled(eye[:2], np.array([2, 1]))]
    accuracy = top1_accuracy(identity(), iter(batches))
    assert (accuracy.metric, accuracy.value, accuracy.unit) == ("top-1 accuracy", 60.0, "points")
    assert accuracy.counts == {"correct": 3, "total": 5, "top1": 0.6}
    assert (accuracy.outputs, accuracy.samples) == (("logits",), 5)
    assert accuracy.chance == pytest.approx(100 / 3)


def test_the_output_with_the_logits_can_be_named() -> None:
    session = FunctionSession(lambda x: {"a": -x, "b": x}, outputs=("a", "b"))
    batch = [Labelled(np.eye(3, dtype=np.float32), np.arange(3))]
    assert top1_accuracy(session, batch, output="b").value == 100.0
    with raises("EF103", "(a, b)", "output="):
        top1_accuracy(session, batch)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_wrong(bad: float) -> None:
    logits = np.array([[0.0, 1.0], [0.0, bad]], np.float32)
    assert correct_top1(logits, np.array([1, 1])) == 1


@pytest.mark.parametrize(
    ("logits", "labels", "code", "named"),
    [
        (np.zeros((2, 3, 1)), np.zeros(2, int), "EF821", [(2, 3, 1), (2,)]),
        (np.zeros((2, 3)), np.zeros(3, int), "EF821", [(2, 3), (3,)]),
        (np.zeros((2, 3)), np.array([0, 3]), "EF822", ["0 to 3", "3 classes"]),
        (np.zeros((2, 3)), np.array([-1, 2]), "EF822", ["-1 to 2", "3 classes"]),
    ],
)
def test_labels_that_do_not_fit(logits: np.ndarray, labels: np.ndarray, code: str, named: list[object]) -> None:
    with raises(code, *named):
        correct_top1(logits, labels)


@pytest.mark.parametrize(
    "batches",
    [[], [Labelled(np.eye(3, dtype=np.float32), None)]],
)
def test_no_labels(batches: list[Labelled]) -> None:
    with raises("EF823"):
        top1_accuracy(identity(), batches)


def counted(correct: int, total: int, classes: int) -> Top1:
    metric = Top1(("logits",))
    logits = np.zeros((total, classes), np.float32)
    logits[:, 0] = 1.0
    labels = np.ones(total, int)
    labels[:correct] = 0
    metric.update({"logits": logits}, labels)
    return metric


@pytest.mark.parametrize(
    ("correct", "total", "classes", "at_chance"),
    [
        (0, 4, 2, True),
        # One guess in a thousand is right by chance, 1 sample or 5.
        (1, 1, 1000, False),
        (1, 5, 1000, False),
        (1, 20, 1000, True),
        # 1 / 2^6 is above one in a hundred, 1 / 2^7 below.
        (6, 6, 2, True),
        (7, 7, 2, False),
        # 500 of 10 classes: mean 50, deviation 6.7.
        (50, 500, 10, True),
        (65, 500, 10, True),
        (67, 500, 10, False),
        (500, 500, 10, False),
        # Tails that no float holds as a product of factorials.
        (25_300, 50_000, 2, False),
        (25_250, 50_000, 2, True),
    ],
)
def test_chance_is_one_over_the_classes_within_sampling_error(
    correct: int, total: int, classes: int, at_chance: bool
) -> None:
    score = counted(correct, total, classes).result()
    assert (score.chance, score.at_chance) == (100.0 / classes, at_chance)


def test_the_drop_is_exact() -> None:
    """32.2 - 31.2 points is a little more than 1 in floating point; 5 of 500 samples are 1 point."""
    reference, candidate = counted(161, 500, 10), counted(156, 500, 10)
    assert reference.result().value - candidate.result().value > 1.0
    assert candidate.drop(reference) == 1.0
    assert reference.drop(candidate) == -1.0


def test_the_drop_between_different_numbers_of_samples() -> None:
    assert counted(1, 4, 10).drop(counted(1, 2, 10)) == 25.0


@pytest.mark.parametrize(
    ("outputs", "labels", "found"),
    [
        ({"a": np.zeros((3, 2)), "b": np.zeros((3, 5))}, np.zeros(3, int), ("a",)),
        ({"maps": np.zeros((3, 2, 4)), "b": np.zeros((3, 5), np.float16)}, np.zeros(3, int), ("b",)),
        ({"classes": np.zeros((3, 5), int), "one": np.zeros((3, 1))}, np.zeros(3, int), ()),
        ({"a": np.zeros((3, 2))}, np.zeros((3, 2), int), ()),
    ],
)
def test_logits_are_floats_of_two_classes_or_more(
    outputs: dict[str, np.ndarray], labels: np.ndarray, found: tuple[str, ...]
) -> None:
    assert Top1.find(outputs, labels) == found
