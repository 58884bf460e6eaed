"""Scenes to learn from and to calibrate on: discs, squares and triangles on a noisy ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["CLASSES", "Scene", "make_scene"]

CLASSES = ("disc", "square", "triangle")
_TRIES = 30


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        picture: square, RGB.
        boxes: ``[objects, 4]`` float32: left, top, right, bottom in pixels.
        labels: ``[objects]`` int64, indices of `CLASSES`.
    """

    picture: Image.Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def make_scene(size: int, seed: int) -> Scene:
    """A scene of ``size`` x ``size`` pixels with one to five objects that do not touch; a seed gives one scene."""
    random = np.random.default_rng(seed)
    ground = random.integers(40, 216, 3) + random.normal(0, 12, (size, size, 3))
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    boxes: list[NDArray[np.float32]] = []
    labels = []
    wanted = random.integers(1, 6)
    for _ in range(_TRIES):
        side = int(random.uniform(0.08, 0.5) * size)
        left, top = random.integers(0, size - side, 2)
        box = np.array([left, top, left + side, top + side], np.float32)
        if any((box[:2] < other[2:]).all() and (other[:2] < box[2:]).all() for other in boxes):
            continue
        boxes.append(box)
        labels.append(int(random.integers(len(CLASSES))))
        _draw(picture, box, labels[-1], random.integers(0, 256, 3))
        if len(boxes) == wanted:
            break
    return Scene(picture, np.stack(boxes), np.array(labels))


def _draw(picture: Image.Image, box: NDArray[np.float32], label: int, colour: NDArray[np.int64]) -> None:
    left, top, right, bottom = (float(side) for side in box - np.array([0, 0, 1, 1], np.float32))
    red, green, blue = (int(value) for value in colour)
    fill = (red, green, blue)
    draw = ImageDraw.Draw(picture)
    if CLASSES[label] == "disc":
        draw.ellipse((left, top, right, bottom), fill)
    elif CLASSES[label] == "square":
        draw.rectangle((left, top, right, bottom), fill)
    else:
        draw.polygon(((left, bottom), (right, bottom), ((left + right) / 2, top)), fill)
