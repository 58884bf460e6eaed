"""The shipped checkpoint is what its card says, and the script's steps work from digits to files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeformer.artifacts import sha256_of_file
from edgeformer.data import open_samples
from edgeformer.models import model_info
from examples.train_nano import checkpoint
from examples.train_nano.checkpoint import digit_samples, load_nano, make_checkpoint, measure
from examples.train_nano.digits import Digits, DigitsSplit
from examples.train_nano.training import TrainingPlan

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits"
IMAGES = ROOT / "calibration" / "digits"
PREPROCESSING = model_info("biformer_nano").preprocessing


def test_the_log_is_of_the_shipped_weights() -> None:
    log = json.loads((CHECKPOINT / "training.json").read_text())
    assert log["sha256"] == sha256_of_file(CHECKPOINT / "model.safetensors")
    assert log["test"]["images"] == 1000
    assert log["test"]["top1"] >= 98.0
    card = (CHECKPOINT / "MODEL_CARD.md").read_text()
    assert card == checkpoint.card(log)
    assert f"| FP32 | {log['test']['top1']:.2f} % |" in card
    assert log["sha256"] in card


def test_files_are_small() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 3_000_000
    assert sum(path.stat().st_size for path in IMAGES.rglob("*.png")) <= 3_000_000


def test_image_folders_are_balanced_and_disjoint() -> None:
    calibration, evaluation = (open_samples(IMAGES / name, PREPROCESSING) for name in ("calibrate", "evaluate"))
    for samples, per_class in ((calibration, 20), (evaluation, 50)):
        assert samples.class_names == tuple("0123456789")
        assert len(samples) == 10 * per_class
    content = [{path.read_bytes() for path in (IMAGES / name).rglob("*.png")} for name in ("calibrate", "evaluate")]
    assert not content[0] & content[1]


def test_the_shipped_weights_tell_digits_apart_and_were_trained_in_float() -> None:
    """Half the evaluation images; the figure of the whole test split is in the card."""
    result = measure(
        load_nano(CHECKPOINT / "model.safetensors"), open_samples(IMAGES / "evaluate", PREPROCESSING, limit=250)
    )
    assert result.images == 250
    assert result.top1 >= 97.0
    log = json.loads((CHECKPOINT / "training.json").read_text())
    assert log["plan"] == asdict(TrainingPlan())
    assert len(log["epochs"]) == TrainingPlan().epochs


def _digits(per_class: int, seed: int) -> Digits:
    """Blocks at ten places stand for ten digits."""
    generator = np.random.default_rng(seed)
    labels = np.tile(np.arange(10), per_class)
    images = generator.integers(0, 30, (len(labels), 28, 28), np.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 5)
        image[4 + 12 * row : 12 + 12 * row, 1 + 5 * column : 6 + 5 * column] = 255
    return Digits(images, labels.astype(np.int64))


SPLIT = DigitsSplit(_digits(2, seed=1), _digits(1, seed=2))
PLAN = TrainingPlan(epochs=2, batch_size=10)


@pytest.mark.slow
def test_making_a_checkpoint(tmp_path: Path) -> None:
    lines: list[str] = []
    command = "examples/train_nano/train.py --threads 1"
    result = make_checkpoint(SPLIT, PLAN, folder=tmp_path / "out", command=command, report=lines.append)
    assert [line.partition(":")[0] for line in lines] == ["1/2", "2/2"]
    assert sorted(os.listdir(tmp_path / "out")) == ["MODEL_CARD.md", "model.safetensors", "training.json"]
    log = json.loads((tmp_path / "out" / "training.json").read_text())
    assert [epoch["epoch"] for epoch in log["epochs"]] == [1, 2]
    assert log["command"] == command
    assert log["test"]["images"] == result.images == 10
    again = measure(load_nano(tmp_path / "out" / "model.safetensors"), digit_samples(SPLIT.test))
    assert again == result


def test_the_script_says_what_it_can_do() -> None:
    script = ROOT / "examples" / "train_nano" / "train.py"
    result = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    for option in ("--evaluate", "--threads"):
        assert option in result.stdout


def test_training_sees_the_same_pixels_as_deployment() -> None:
    """Bilinear to 112x112 by torch and by Pillow, which rounds to whole grey values after rows and after columns."""
    data = checkpoint.training_data(SPLIT.train)
    resized = torch.nn.functional.interpolate(data.images, (112, 112), mode="bilinear", align_corners=False)
    deployed = torch.from_numpy(next(digit_samples(SPLIT.train).batches(20)).images)
    one_grey_value = 1 / 255 / min(PREPROCESSING.std)
    difference = (data.normalize(resized) - deployed).abs()
    assert difference.max() <= 1.01 * one_grey_value
    assert difference.mean() <= 0.5 * one_grey_value
    assert data.size == (112, 112)
