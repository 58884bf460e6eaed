"""What the example does, for its script and its test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import edgeformer as ef
from edgeformer.models import model_info
from edgeformer.quantization import fake_quantize
from examples.qat.degraded import degraded
from examples.qat.tuning import Plan, fine_tune
from examples.train_nano.checkpoint import MODEL, digit_samples, load_nano, training_data
from examples.train_nano.digits import Digits, DigitsSplit
from examples.train_nano.fake_quantization import signal_to_noise

__all__ = ["Measured", "run"]

_CALIBRATION = 128
_TRAINED_ON = 2000
_BATCH = 50


@dataclass(frozen=True)
class Measured:
    """What a form of the network does on test images.

    Attributes:
        top1: share that it gets right, in percent.
        snr_db: signal to noise of its logits against those of the float network, in dB; infinite for that one itself.
    """

    top1: float
    snr_db: float


def run(
    split: DigitsSplit,
    checkpoint: Path,
    output: Path,
    *,
    steps: int | None,
    images: int,
    report: Callable[[str], None],
) -> dict[str, dict[str, Measured]]:
    """Fine-tune the network of a checkpoint, measure, and export.

    Args:
        split: the digits: calibration and training see those of ``train`` alone, accuracy is on those of ``test``.
        checkpoint: of ``biformer_nano``, trained in float.
        output: the ONNX file.
        steps: of the optimizer; None is the plan's.
        images: how many test images, spread over the classes.
        report: takes a line for the person who waits.

    Returns:
        Form -> "clean" and "degraded" -> what was measured.
    """
    teacher = load_nano(checkpoint)
    chosen = np.linspace(0, len(split.test) - 1, min(images, len(split.test))).round().astype(int)
    test = _some(split.test, chosen)
    sets = {"clean": test, "degraded": degraded(test, seed=1)}
    calibration = digit_samples(_some(split.train, np.arange(0, len(split.train), len(split.train) // _CALIBRATION)))
    model = fake_quantize(teacher, samples=calibration, learn_scales=True)
    found: dict[str, dict[str, Measured]] = {}

    wanted: dict[str, Tensor] = {}

    def measure(form: str, network: nn.Module) -> None:
        found[form] = {}
        for name, digits in sets.items():
            logits = _logits(network, digits)
            found[form][name] = _measured(logits, wanted.setdefault(name, logits), digits)
        report(f"{form}: " + ", ".join(_words(name, one) for name, one in found[form].items()))

    measure("FP32", teacher)
    measure("INT8, rounded", model)

    plan = Plan() if steps is None else replace(Plan(), steps=steps)
    began = time.process_time()
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 20 == 0 or step == plan.steps:
            noise = -10 * float(np.log10(np.mean(losses[-20:])))
            report(f"step {step} of {plan.steps}: logits {noise:.1f} dB above the INT8 noise")

    fine_tune(model, teacher, training_data(_trained_on(split.train)), plan, on_step)
    report(f"{time.process_time() - began:.0f} s of CPU time to fine-tune")
    measure("INT8, trained", model)
    preprocessing = model_info(MODEL).preprocessing
    graph = ef.export_onnx(model, input_size=(preprocessing.height, preprocessing.width))
    output.parent.mkdir(parents=True, exist_ok=True)
    ef.save_model(graph, output)
    report(f"wrote {output}")
    return found


def _some(digits: Digits, indices: np.ndarray) -> Digits:
    return Digits(digits.images[indices], digits.labels[indices])


def _trained_on(digits: Digits) -> Digits:
    """Training images, half of them degraded: there, too, the network is to do what the float one does."""
    indices = np.random.default_rng(0).permutation(len(digits))[:_TRAINED_ON]
    clean = _some(digits, indices[::2])
    worse = degraded(_some(digits, indices[1::2]), seed=0)
    return Digits(np.concatenate([clean.images, worse.images]), np.concatenate([clean.labels, worse.labels]))


@torch.no_grad()
def _logits(model: nn.Module, digits: Digits) -> Tensor:
    return torch.cat([model(torch.from_numpy(batch.images)) for batch in digit_samples(digits).batches(_BATCH)])


def _measured(logits: Tensor, wanted: Tensor, digits: Digits) -> Measured:
    right = logits.argmax(dim=1).numpy() == digits.labels
    return Measured(100 * float(right.mean()), signal_to_noise(wanted, logits))


def _words(name: str, one: Measured) -> str:
    return f"{one.top1:.2f} % {name}" + (f" at {one.snr_db:.1f} dB" if math.isfinite(one.snr_db) else "")
