"""The drop of a metric, with its margin."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeformer.quantization.task_drop import largest_drop


@pytest.mark.parametrize(
    ("lost", "won", "count", "points"),
    [
        (0, 0, 256, 100 * 1.645 / 256),
        (0, 0, 10_000, 100 * 1.645 / 10_000),
        (10, 0, 1000, 100 * (10 + 1.645 * math.sqrt(11)) / 1000),
        (10, 10, 1000, 100 * 1.645 * math.sqrt(21) / 1000),
        (0, 30, 1000, 100 * (-30 + 1.645 * math.sqrt(31)) / 1000),
    ],
)
def test_what_was_lost_and_the_margin_of_what_changed(lost: int, won: int, count: int, points: float) -> None:
    before, after = np.ones(count, bool), np.ones(count, bool)
    after[:lost] = False
    before[count - won :] = False
    assert largest_drop(before, after) == pytest.approx(points)
