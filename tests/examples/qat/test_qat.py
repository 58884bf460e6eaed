"""The example on quantization-aware training, cut short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeformer.graph.onnx_files import load_model
from edgeformer.graph.trained_qdq import is_trained
from examples.qat.degraded import degraded
from examples.qat.run import run
from examples.qat.train import CHECKPOINT
from examples.train_nano.digits import Digits, load_digits


def some(count: int = 6) -> Digits:
    random = np.random.default_rng(0)
    return Digits(random.integers(0, 256, (count, 28, 28)).astype(np.uint8), np.arange(count))


def test_each_image_is_degraded_in_its_own_way_and_keeps_its_label() -> None:
    digits = some()
    first = degraded(digits, seed=1)
    assert first.images.shape == digits.images.shape
    assert first.images.dtype == np.uint8
    assert np.array_equal(first.labels, digits.labels)
    assert np.array_equal(first.images, degraded(digits, seed=1).images)
    assert not np.array_equal(first.images, degraded(digits, seed=2).images)
    change = np.abs(first.images.astype(int) - digits.images).mean(axis=(1, 2))
    assert len(set(change.round(3))) == len(digits)


def test_the_strength_decides_how_bad_an_image_gets() -> None:
    digits = some()
    changes = [
        np.abs(degraded(digits, strength=strength).images.astype(int) - digits.images).mean()
        for strength in (0.0, 0.3, 0.6, 0.9)
    ]
    assert changes == sorted(changes)
    assert changes[0] < 3  # JPEG alone, at its best


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    lines: list[str] = []
    found = run(load_digits(), CHECKPOINT, tmp_path / "qat.onnx", steps=8, images=200, report=lines.append)
    assert list(found) == ["FP32", "INT8, rounded", "INT8, trained"]
    # A network that knows clean digits alone.
    assert found["FP32"]["clean"].top1 > 95
    assert 75 < found["FP32"]["degraded"].top1 < 95
    # Eight steps leave it where the optimizer has only begun to settle: what is asked is that it does not go astray.
    for name in ("clean", "degraded"):
        assert found["INT8, trained"][name].top1 > found["INT8, rounded"][name].top1 - 3
        assert found["INT8, trained"][name].snr_db > 15
    graph = load_model(tmp_path / "qat.onnx")
    assert is_trained(graph)
    assert sum(node.op_type == "QuantizeLinear" for node in graph.graph.node) == 25
    assert lines[-1] == f"wrote {tmp_path / 'qat.onnx'}"
