from __future__ import annotations

import numpy as np
import pytest

from edgeformer.errors import InputError
from edgeformer.verify.metrics.classification import correct_top1, top1_accuracy
from tests.verify.conftest import FunctionSession, Labelled


def identity(**options):
    return FunctionSession(lambda x: x, **options)


def test_accuracy_over_batches():
    eye = np.eye(3, dtype=np.float32)
    batches = [Labelled(eye, np.array([0, 1, 0])), Labelled(eye[:2], np.array([2, 1]))]
    accuracy = top1_accuracy(identity(), iter(batches))
    assert (accuracy.correct, accuracy.total) == (3, 5)
    assert accuracy.fraction == 0.6
    assert accuracy.points == 60.0
    assert accuracy.to_dict() == {"correct": 3, "total": 5, "top1": 0.6}


def test_the_output_with_the_logits_can_be_named():
    session = FunctionSession(lambda x: {"a": -x, "b": x}, outputs=("a", "b"))
    batch = [Labelled(np.eye(3, dtype=np.float32), np.arange(3))]
    assert top1_accuracy(session, batch, output="b").correct == 3
    with pytest.raises(InputError, match=r"several outputs \(a, b\)"):
        top1_accuracy(session, batch)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_wrong(bad):
    logits = np.array([[0.0, 1.0], [0.0, bad]], np.float32)
    assert correct_top1(logits, np.array([1, 1])) == 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3, 1)), np.zeros(2, int), "needs logits"),
        (np.zeros((2, 3)), np.zeros(3, int), "needs logits"),
        (np.zeros((2, 3)), np.array([0, 3]), "labels go from 0 to 3, and the model has 3 classes"),
        (np.zeros((2, 3)), np.array([-1, 2]), "labels go from -1 to 2"),
    ],
)
def test_labels_that_do_not_fit(logits, labels, message):
    with pytest.raises(InputError, match=message):
        correct_top1(logits, labels)


@pytest.mark.parametrize(
    ("batches", "message"),
    [([], "there are none"), ([Labelled(np.eye(3, dtype=np.float32), None)], "have no labels")],
)
def test_no_labels(batches, message):
    with pytest.raises(InputError, match=message):
        top1_accuracy(identity(), batches)
