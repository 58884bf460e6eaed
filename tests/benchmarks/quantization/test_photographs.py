"""Crops of photographs: training, calibration and test share no pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantization.photographs import CELLS, cut


def numbered(height: int, width: int) -> NDArray[np.uint8]:
    """A photograph whose pixels tell their cell."""
    rows = np.arange(height) * CELLS // height
    columns = np.arange(width) * CELLS // width
    cells = (rows[:, None] * CELLS + columns).astype(np.uint8)
    return np.repeat(cells[..., None], 3, axis=2)


def test_no_cell_is_in_two_parts() -> None:
    parts = cut([numbered(80, 120), numbered(96, 96)], size=10)
    for label in (0, 1):
        seen = [
            set(np.unique(part.images[part.labels == label])) for part in (parts.train, parts.calibration, parts.test)
        ]
        # Every crop lies within one cell, so that resizing mixes none.
        assert [len(cells) for cells in seen] == [10, 1, 5]
        assert set.union(*seen) == set(range(CELLS * CELLS))


def test_classes_take_turns_and_all_is_seeded() -> None:
    photographs = [numbered(80, 120), numbered(96, 96), numbered(64, 64)]
    parts = cut(photographs, size=10)
    assert parts.test.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert parts.train.images.shape == (3 * 330, 10, 10, 3)
    again = cut(photographs, size=10)
    assert np.array_equal(parts.train.images, again.train.images)
