"""The checkpoints that are quantized: trained here, in floating point alone, from a seed.

    python -m benchmarks.quantization.subjects NAME... [--folder build/quantization/checkpoints]

A network that was trained with INT8 in the loop suits the ranges that it was trained with: what it keeps says little
about others.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from edgeformer.data import Samples
    from examples.train_nano.training import TrainingData

__all__ = ["CHECKPOINTS", "MODEL", "SUBJECTS", "Subject", "images_of", "network_of", "train_subject"]

MODEL = "biformer_nano"
ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "build" / "quantization" / "checkpoints"
WEIGHTS, LOG = "model.safetensors", "training.json"
_BATCH = 50
_LARGER = {"dims": (48, 96, 144, 192), "depths": (2, 2, 4, 2)}


@dataclass(frozen=True)
class Subject:
    """A checkpoint and what it is quantized on.

    Attributes:
        name: of its folder and its columns.
        data: what it was trained on, is calibrated with and judged by.
        seed: of weights, order and augmentation.
        epochs: of training.
        wanted: least top-1 accuracy on its test images, percent.
        overrides: of the model's configuration.
    """

    name: str
    data: Literal["digits", "photographs"]
    seed: int
    epochs: int
    wanted: float
    overrides: Mapping[str, Any] = field(default_factory=dict)


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("seed1", "digits", seed=1, epochs=8, wanted=98.0),
        Subject("seed2", "digits", seed=2, epochs=8, wanted=98.0),
        Subject("seed3", "digits", seed=3, epochs=8, wanted=98.0),
        Subject("photographs", "photographs", seed=1, epochs=8, wanted=84.0),
        Subject("larger", "digits", seed=1, epochs=8, wanted=98.0, overrides=_LARGER),
    )
}


@dataclass(frozen=True)
class Images:
    """What a subject is trained on, calibrated with and judged by.

    Attributes:
        training: for the training loop.
        calibration: 200 images, without labels.
        test: labelled; neither training nor calibration sees them.
        judged: the part of them that rows are judged by.
    """

    training: TrainingData
    calibration: Samples
    test: Samples
    judged: Samples


def images_of(subject: Subject) -> Images:
    """The images of a subject.

    Raises:
        EnvironmentFault: the package that ships them is not installed.
    """
    import torch

    from edgeformer.data import open_samples
    from edgeformer.models import model_info
    from examples.train_nano.checkpoint import digit_samples, training_data
    from examples.train_nano.digits import load_digits
    from examples.train_nano.training import TrainingData

    preprocessing = model_info(MODEL).preprocessing
    if subject.data == "digits":
        split, folder = load_digits(), ROOT / "calibration" / "digits"
        calibration, judged = (open_samples(folder / part, preprocessing) for part in ("calibrate", "evaluate"))
        return Images(training_data(split.train), calibration, digit_samples(split.test), judged)
    from benchmarks.quantization.photographs import Crops, load_photographs

    parts = load_photographs(preprocessing.height)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    pixels = torch.from_numpy(parts.train.images).permute(0, 3, 1, 2).float() / 255
    size = (preprocessing.height, preprocessing.width)
    training = TrainingData(pixels, torch.from_numpy(parts.train.labels), size, lambda x: (x - mean) / std)

    def samples(crops: Crops) -> Samples:
        return open_samples(list(zip(crops.images, crops.labels, strict=True)), preprocessing)

    test = samples(parts.test)
    return Images(training, samples(parts.calibration), test, test)


def network_of(subject: Subject) -> nn.Module:
    """The network of a subject, with random weights."""
    from edgeformer.models import create_model

    overrides = dict(subject.overrides)
    if subject.data == "photographs":
        from benchmarks.quantization.photographs import NAMES

        overrides["num_classes"] = len(NAMES)
    return create_model(MODEL, **overrides)


def train_subject(subject: Subject, folder: Path) -> float:
    """Train a subject in floating point and write its checkpoint and its log, anew after each epoch.

    Args:
        subject: which.
        folder: gets `model.safetensors` and `training.json`.

    Returns:
        Top-1 accuracy on its test images, percent.
    """
    import torch
    from safetensors.torch import save_file

    from examples.train_nano.training import EpochRecord, TrainingPlan, train

    images = images_of(subject)
    plan = TrainingPlan(epochs=subject.epochs, seed=subject.seed)
    folder.mkdir(parents=True, exist_ok=True)
    started, epochs = time.monotonic(), []

    def on_epoch(record: EpochRecord, model: nn.Module) -> None:
        top1 = _top1(model, images.test)
        epochs.append({"epoch": record.epoch, "loss": record.loss, "top1": top1})
        print(
            f"{subject.name} {record.epoch}/{plan.epochs}: loss {record.loss:.4f}, top-1 {top1:.2f} %, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        log = {"seed": subject.seed, "planned": plan.epochs, "overrides": dict(subject.overrides), "epochs": epochs}
        (folder / LOG).write_text(json.dumps(log, indent=1) + "\n")

    torch.manual_seed(subject.seed)
    train(network_of(subject), images.training, plan, on_epoch)
    return float(epochs[-1]["top1"])


def _top1(model: nn.Module, samples: Samples) -> float:
    import torch

    right: list[bool] = []
    with torch.no_grad():
        for batch in samples.batches(_BATCH):
            assert batch.labels is not None
            right += (model(torch.from_numpy(batch.images)).argmax(1).numpy() == batch.labels).tolist()
    return 100 * sum(right) / len(right)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--folder", type=Path, default=CHECKPOINTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(words)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    for name in options.names:
        train_subject(SUBJECTS[name], options.folder / name)


if __name__ == "__main__":
    main()
