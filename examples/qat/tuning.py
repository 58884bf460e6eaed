"""The training loop: the fake-quantized network learns to give the logits of the float one. No labels are needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from examples.train_nano.training import TrainingData, augment

__all__ = ["Plan", "fine_tune"]


@dataclass(frozen=True)
class Plan:
    """How to fine-tune.

    Attributes:
        steps: of the optimizer, Adam with half a cosine.
        batch_size: images a step.
        weight_rate: learning rate of matrices and kernels, at the first step.
        vector_rate: the same of biases and norms, whose values are larger.
        scale_rate: the same of the logarithms of the activations' scales.
        seed: of batches and augmentation.
    """

    steps: int = 120
    batch_size: int = 32
    weight_rate: float = 3e-5
    vector_rate: float = 2e-4
    scale_rate: float = 2e-3
    seed: int = 0


def fine_tune(
    model: nn.Module, teacher: nn.Module, data: TrainingData, plan: Plan, on_step: Callable[[int, float], None]
) -> None:
    """Train ``model`` in place.

    Args:
        model: what `edgeformer.quantization.fake_quantize` gave of ``teacher``.
        teacher: the float network, in eval mode.
        data: the images; labels are not looked at.
        plan: how.
        on_step: told of each step, from 1, and its loss: energy of the logits' error over that of the centred logits.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    scales = [value for name, value in model.named_parameters() if name.endswith("input_rounding.change")]
    groups = [
        {"params": [value for value in model.parameters() if value.ndim > 1], "lr": plan.weight_rate},
        {"params": [value for value in model.parameters() if value.ndim == 1], "lr": plan.vector_rate},
        {"params": scales, "lr": plan.scale_rate},
    ]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / plan.steps))
    )
    model.train()
    for step in range(1, plan.steps + 1):
        picked = torch.randint(len(data.images), (plan.batch_size,), generator=generator)
        inputs = data.normalize(augment(data.images[picked], data.size, generator))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = teacher(inputs)
        loss = _relative_error(model(inputs), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        optimizer.step()
        schedule.step()
        on_step(step, loss.item())
    model.eval()


def _relative_error(logits: Tensor, wanted: Tensor) -> Tensor:
    # Centred: a constant added to all logits would lower the ratio and mean nothing.
    signal = wanted - wanted.mean(dim=1, keepdim=True)
    return (logits - wanted).square().sum() / signal.square().sum()
