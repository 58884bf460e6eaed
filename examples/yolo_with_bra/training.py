"""A short training: enough for boxes that mean something, far from what the network could learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.yolo_with_bra.detector import STRIDES, Detector, cell_centres
from examples.yolo_with_bra.scenes import Scene, make_scene

__all__ = ["FIRST_UNSEEN", "pixels_of", "train"]

FIRST_UNSEEN = 1_000_000
"""Scenes of seeds from here on are never trained on."""

_BATCH = 8
# A head is responsible for objects whose longer side is below this many of its cells, and no head before it.
_CELLS = 6.0
# Cells whose centre is this near to the object's, in cells, learn to find it.
_NEAR = 1.5


def train(model: Detector, size: int, steps: int, report: Callable[[str], None]) -> None:
    """Train on scenes of ``size`` pixels, each seen once; the model is in evaluation mode afterwards.

    Args:
        model: is changed.
        size: height and width of the scenes, in pixels.
        steps: of the optimizer, with 8 scenes each; 0 leaves random weights.
        report: takes a line now and then.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=max(steps, 1), pct_start=0.2)
    for step in range(steps):
        scenes = [make_scene(size, step * _BATCH + index) for index in range(_BATCH)]
        loss = _loss(model, scenes, size)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            report(f"step {step + 1} of {steps}: loss {loss.item():.2f}")
    model.eval()


def pixels_of(scenes: list[Scene]) -> Tensor:
    """``[N, 3, size, size]`` float, 0 to 1: what ``--preprocessing scale`` makes of the pictures."""
    stacked = np.stack([np.asarray(scene.picture) for scene in scenes])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def _loss(model: Detector, scenes: list[Scene], size: int) -> Tensor:
    """Focal loss of the classes and GIoU loss of the boxes, per responsible cell."""
    boxes, logits = model.predict(pixels_of(scenes))
    owners = [_owners(torch.from_numpy(scene.boxes), size) for scene in scenes]
    classes = torch.zeros_like(logits)
    losses = []
    for index, (scene, owner) in enumerate(zip(scenes, owners, strict=True)):
        cells = (owner >= 0).nonzero().flatten()
        classes[index, cells, torch.from_numpy(scene.labels)[owner[cells]]] = 1
        losses.append(1 - _giou(boxes[index, cells], torch.from_numpy(scene.boxes)[owner[cells]]))
    responsible = max(1, sum(len(loss) for loss in losses))
    crossed = functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    doubt = (classes - logits.detach().sigmoid()).abs().square()
    return ((crossed * doubt).sum() + 2 * torch.cat(losses).sum()) / responsible


def _owners(objects: Tensor, size: int) -> Tensor:
    """For each cell the object that it shall find, or -1: ``[objects, 4]`` to ``[cells]`` int64."""
    longest = (objects[:, 2:] - objects[:, :2]).amax(dim=1)
    middles = (objects[:, :2] + objects[:, 2:]) / 2
    owners = []
    for level, stride in enumerate(STRIDES):
        side = -(-size // stride)
        away = (cell_centres(side, side, stride)[:, None] - middles).abs().amax(dim=2) / stride  # [cells, objects]
        smallest = 0.0 if level == 0 else _CELLS * STRIDES[level - 1]
        largest = float("inf") if level == len(STRIDES) - 1 else _CELLS * stride
        away[:, (longest < smallest) | (longest >= largest)] = float("inf")
        nearest = away.min(dim=1)
        owners.append(torch.where(nearest.values < _NEAR, nearest.indices, -1))
    return torch.cat(owners)


def _giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalized intersection over union of boxes ``[n, 4]``, pair by pair."""
    shared = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    common, around = shared.prod(dim=1), hull.prod(dim=1)
    union = (first[:, 2:] - first[:, :2]).prod(dim=1) + (second[:, 2:] - second[:, :2]).prod(dim=1) - common
    return common / union - (around - union) / around
