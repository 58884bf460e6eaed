"""Training ``biformer_nano`` on digits, in floating point alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["EpochRecord", "OnEpoch", "TrainingData", "TrainingPlan", "augment", "train"]


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained: AdamW, warm-up then cosine, label smoothing, moving average of the weights.

    Attributes:
        epochs: how often all images are seen.
        batch_size: images a step.
        learning_rate: its peak.
        weight_decay: on matrices and kernels, not on norms and biases.
        label_smoothing: share of the target spread over all classes.
        average: decay of the moving average, a step.
        seed: for weights, order and augmentation.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average: float = 0.99
    seed: int = 1


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: its number, from 1.
        loss: mean cross entropy over its steps.
    """

    epoch: int
    loss: float


def augment(images: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random small rotation, scale, shear and shift, resized in the same interpolation; random brightness and contrast.

    Brightness moves the background too: a network that does not mind loses less when INT8 shifts its flat input.

    Args:
        images: ``[N, C, h, w]`` float, 0 to 1.
        size: height and width of the result.
        generator: source of the random numbers.

    Returns:
        ``[N, C, *size]`` float, bilinear.
    """
    n = len(images)
    limits = torch.tensor([math.radians(12), 0.12, 0.15, 0.14, 0.14])
    angle, log_scale, shear, dx, dy = (torch.rand(5, n, generator=generator) * 2 - 1) * limits[:, None]
    scale = torch.exp(-log_scale)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, shear - sin, dx], 1), torch.stack([sin, cos, dy], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [n, images.shape[1], *size], align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    gain = 1 + 0.2 * (torch.rand(n, 1, 1, 1, generator=generator) * 2 - 1)
    offset = 0.1 * (torch.rand(n, 1, 1, 1, generator=generator) * 2 - 1)
    return moved * gain + offset


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on.

    Attributes:
        images: ``[N, C, h, w]`` float, 0 to 1, before augmentation.
        labels: ``[N]`` int64.
        size: height and width of the network's input.
        normalize: from augmented images ``[N, C, *size]`` to the network's input.
    """

    images: Tensor
    labels: Tensor
    size: tuple[int, int]
    normalize: Callable[[Tensor], Tensor]


OnEpoch = Callable[[EpochRecord, nn.Module], None]
"""Called after each epoch with its record and the averaged network so far."""


def train(model: nn.Module, data: TrainingData, plan: TrainingPlan, on_epoch: OnEpoch) -> nn.Module:
    """Train ``model``, which is changed; return the average of its weights, in evaluation mode."""
    generator = torch.Generator().manual_seed(plan.seed)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(_parameter_groups(model, plan.weight_decay), lr=plan.learning_rate)
    steps = plan.epochs * (len(data.labels) // plan.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(steps))
    step = 0
    for epoch in range(1, plan.epochs + 1):
        model.train()
        losses = []
        for batch, target in _batches(data.images, data.labels, plan.batch_size, generator):
            inputs = data.normalize(augment(batch, data.size, generator)).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(inputs), target, label_smoothing=plan.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            step += 1
            # A short memory at first, or the average would keep the start.
            _update_average(average, model, min(plan.average, (1 + step) / (10 + step)))
            losses.append(loss.item())
        on_epoch(EpochRecord(epoch, sum(losses) / len(losses)), average)
    return average


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _schedule(steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at a step: linear warm-up over a tenth of ``steps``, then half a cosine to zero."""
    warmup = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    current = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def _batches(
    images: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches in random order; what does not fill one is left out of this epoch."""
    order = torch.randperm(len(labels), generator=generator)
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        yield images[chosen], labels[chosen]
