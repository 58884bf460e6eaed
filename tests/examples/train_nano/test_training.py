"""Training: the augmentation, and that a network learns on data small enough to tell."""

from __future__ import annotations

import torch
from torch import nn

from examples.train_nano.training import EpochRecord, TrainingData, TrainingPlan, augment, train

PLAN = TrainingPlan(epochs=12, batch_size=16, learning_rate=0.02, average=0.9)


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(128, 2)
    )


def _data() -> TrainingData:
    """64 images of 8x8: a bright block in the upper or in the lower half."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = 0.2 * torch.rand(64, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * label + 1 : 4 * label + 3, 2:6] = 0.9
    return TrainingData(images, labels, (8, 8), lambda x: (x - 0.5) / 0.25)


def _accuracy(model: nn.Module, data: TrainingData) -> float:
    with torch.no_grad():
        return float((model(data.normalize(data.images)).argmax(dim=1) == data.labels).float().mean())


def test_augmentation_keeps_shape_and_type_and_varies() -> None:
    images = _data().images[:6]
    first = augment(images, (20, 24), torch.Generator().manual_seed(1))
    again = augment(images, (20, 24), torch.Generator().manual_seed(1))
    other = augment(images, (20, 24), torch.Generator().manual_seed(2))
    assert first.shape == (6, 1, 20, 24)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)


def test_augmentation_stays_within_its_limits() -> None:
    """A dot in the middle moves by at most 14 % of the half width; flat grey stays within gain and offset."""
    dot = torch.zeros(200, 1, 41, 41)
    dot[:, :, 19:22, 19:22] = 1.0
    generator = torch.Generator().manual_seed(3)
    moved = augment(dot, (41, 41), generator)
    weight = moved - moved.amin(dim=(2, 3), keepdim=True)
    total = weight.sum(dim=(1, 2, 3))
    positions = torch.arange(41.0) - 20
    for axis in (2, 3):
        centre = (weight.sum(dim=(1, 5 - axis)) * positions).sum(dim=1) / total
        # 0.14 of 20.5 pixels, more where the image is also magnified by up to exp(0.12).
        assert centre.abs().max() < 0.14 * 20.5 * 1.3
        assert centre.abs().max() > 1.0
    grey = augment(torch.full((200, 1, 41, 41), 0.5), (41, 41), generator)[:, 0, 20, 20]
    assert grey.min() >= 0.5 * 0.8 - 0.1 - 1e-5
    assert grey.max() <= 0.5 * 1.2 + 0.1 + 1e-5
    assert grey.max() - grey.min() > 0.2


def test_training_learns_and_reports() -> None:
    data, records = _data(), list[EpochRecord]()
    result = train(_net(1), data, PLAN, lambda record, model: records.append(record))
    assert not result.training
    assert _accuracy(_net(1).eval(), data) < 0.8
    assert _accuracy(result, data) == 1.0
    assert [record.epoch for record in records] == list(range(1, 13))
    assert records[-1].loss < records[0].loss


def test_training_is_repeatable() -> None:
    results = []
    for _ in range(2):
        result = train(_net(1), _data(), PLAN, lambda record, model: None)
        results.append(torch.cat([value.flatten().float() for value in result.state_dict().values()]))
    assert torch.equal(*results)
