"""Boxes that overlap are told apart from those that do not, within a class."""

from __future__ import annotations

import numpy as np
import pytest

from examples.yolo_with_bra.boxes import Found, find, overlap


@pytest.mark.parametrize(
    ("other", "share"),
    [((0, 0, 4, 4), 1.0), ((2, 0, 6, 4), 1 / 3), ((4, 0, 8, 4), 0.0), ((5, 5, 6, 6), 0.0), ((1, 1, 3, 3), 0.25)],
)
def test_overlap(other: tuple[int, ...], share: float) -> None:
    first, second = np.array([0, 0, 4, 4], np.float32), np.array(other, np.float32)
    assert overlap(first, second) == overlap(second, first) == np.float32(share)


def test_the_best_of_those_that_overlap_stays_in_each_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 9, 10]], np.float32)
    scores = np.array([[0.5, 0.0], [0.9, 0.0], [0.5, 0.39], [0.0, 0.7]], np.float32)
    kept = [(one.label, float(one.score), one.box[0]) for one in find(boxes, scores, 0.4)]
    assert kept == [(0, np.float32(0.9), 1), (1, np.float32(0.7), 0), (0, 0.5, 20)]
    assert find(boxes, scores, 1.0) == []


def test_a_line_is_in_pixels_of_the_picture() -> None:
    found = Found(1, np.float32(0.25), np.array([1, 2, 3, 4], np.float32))
    assert found.line(("disc", "square"), (2.0, 0.5)) == "square 0.250 at 2.0 1.0 6.0 2.0"
