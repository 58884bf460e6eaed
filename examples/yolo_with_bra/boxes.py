"""From a detector's boxes and scores to what is in the picture; detect.cpp does the same in C++."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_OVERLAP", "Found", "find", "overlap"]

Floats = NDArray[np.float32]

MOST_OVERLAP = 0.5


@dataclass(frozen=True)
class Found:
    """An object in a picture.

    Attributes:
        label: index of its class.
        score: from 0 to 1.
        box: ``[4]``: left, top, right, bottom in pixels of the network's input.
    """

    label: int
    score: np.float32
    box: Floats

    def line(self, labels: Sequence[str], scale: tuple[float, float]) -> str:
        """What it is and where, with ``scale`` pixels of the picture to one of the input, across and down."""
        sides = self.box * np.array(scale * 2, np.float32)
        return f"{labels[self.label]} {self.score:.3f} at {' '.join(f'{side:.1f}' for side in sides)}"


def find(boxes: Floats, scores: Floats, least_score: float) -> list[Found]:
    """Greedy non-maximum suppression within each class, best first.

    Args:
        boxes: ``[cells, 4]`` float32.
        scores: ``[cells, classes]`` float32; of equal ones the first counts as better.
        least_score: what is below is left out.
    """
    cells, labels = np.nonzero(scores >= np.float32(least_score))
    order = np.argsort(-scores[cells, labels], kind="stable")
    kept: list[Found] = []
    for cell, label in zip(cells[order], labels[order], strict=True):
        box = boxes[cell]
        if all(one.label != label or overlap(one.box, box) <= np.float32(MOST_OVERLAP) for one in kept):
            kept.append(Found(int(label), scores[cell, label], box))
    return kept


def overlap(first: Floats, second: Floats) -> np.float32:
    """Intersection over union of two boxes ``[4]``."""
    width, height = np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), np.float32(0))
    common = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    share: np.float32 = common / (areas[0] + areas[1] - common)
    return share
