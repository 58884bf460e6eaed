"""The trained model that comes with edgeformer, from checkpoint to INT8, judged on images kept from calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.data import Samples, open_samples
from edgeformer.graph.fuse import fuse
from edgeformer.graph.types import to_float_type
from edgeformer.models import model_info
from edgeformer.quantization import Override, load_recipe, quantize
from tests.graph.precision_graphs import run, snr_db

ROOT = Path(__file__).parents[2]
INFO = model_info("biformer_nano")


def samples(name: str) -> Samples:
    return open_samples(ROOT / "calibration" / "digits" / name, INFO.preprocessing)


@pytest.fixture(scope="module")
def fused() -> onnx.ModelProto:
    pytest.importorskip("torch", reason="the checkpoint is exported with PyTorch")
    from edgeformer.export import export_onnx
    from edgeformer.models import create_model, load_checkpoint

    model = create_model("biformer_nano")
    load_checkpoint(model, ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors")
    return fuse(export_onnx(model.eval(), input_size=INFO.input_size)).model


def logits(model: onnx.ModelProto, source: Samples, optimize: bool = False) -> tuple[np.ndarray[Any, Any], float]:
    """Logits ``[N, 10]`` and top-1 in percent."""
    found, labels = [], []
    for batch in source.batches(100):
        assert batch.labels is not None
        found.append(run(model, batch.images, optimize=optimize)[0])
        labels.append(batch.labels)
    every = np.concatenate(found)
    return every, float((every.argmax(axis=1) == np.concatenate(labels)).mean() * 100)


@pytest.mark.slow
def test_int8_keeps_the_trained_model_accurate(fused: onnx.ModelProto) -> None:
    evaluation = samples("evaluate")
    reference, top1 = logits(fused, evaluation)
    half, half_top1 = logits(to_float_type(fused, "float16"), evaluation)
    # The FP16 gate's figure, over all images: on a single one a near-tied region may be routed otherwise.
    cosine = (reference * half).sum() / np.linalg.norm(reference) / np.linalg.norm(half)
    assert cosine >= 0.9999
    assert half_top1 == pytest.approx(top1, abs=0.2)
    result = quantize(fused, samples("calibrate"))
    typed = to_float_type(result.model, "float16")
    int8, int8_top1 = logits(typed, evaluation)
    # What the shipped model has to keep: 42 dB and all but half a point of top-1.
    assert snr_db(reference, int8) >= 42
    assert top1 - int8_top1 <= 0.5
    # ONNX Runtime's optimizer changes nothing that matters: the figure does not hang on how the graph is run.
    optimized, _ = logits(typed, evaluation, optimize=True)
    assert snr_db(reference, optimized) == pytest.approx(snr_db(reference, int8), abs=0.5)
    # Most of the network is INT8.
    assert result.calibration.int8_share is not None
    assert result.calibration.int8_share >= 0.8


@pytest.mark.slow
def test_int8_attention_costs_the_trained_model_little(fused: onnx.ModelProto) -> None:
    recipe = load_recipe().model_copy(
        update={
            "quantize_attention": True,
            "overrides": (Override(quantize=False, because="attention alone"),),
        }
    )
    evaluation = samples("evaluate")
    reference, top1 = logits(fused, evaluation)
    int8, int8_top1 = logits(
        to_float_type(quantize(fused, samples("calibrate"), recipe=recipe).model, "float16"), evaluation
    )
    # Less than the INT8 layers cost (40 dB), and with FP16 in it.
    assert snr_db(reference, int8) >= 48
    assert top1 - int8_top1 <= 0.2
