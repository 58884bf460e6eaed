"""A folder for each checkpoint with all that rows are made from and judged by.

| file | what |
|---|---|
| `exported.onnx`, `fused.onnx` | the FP32 network in standard operators, and with the attention op |
| `calibrate.npy` | 200 calibration images |
| `clean.npz`, `degraded.npz` | evaluation images, labels, and what FP32 makes of them |
| `prepared.json` | what was prepared; it is there when all else is |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import edgeformer as ef
from benchmarks.quantization.degradations import weakened
from benchmarks.quantization.judge import Reference, run
from benchmarks.quantization.multiply_adds import multiply_adds
from benchmarks.quantization.subjects import MODEL, WEIGHTS, Subject, images_of, network_of
from edgeformer.artifacts import sha256_of_file
from edgeformer.data import Preprocessing, Samples
from edgeformer.models import model_info

__all__ = ["prepare"]

_CALIBRATION = 200
_BATCH = 50


def prepare(subject: Subject, checkpoint: Path, folder: Path, *, clean: int, degraded: int) -> dict[str, Any]:
    """Make the folder of a subject, or read what it says where it was made of this checkpoint and as many images.

    Args:
        subject: which.
        checkpoint: folder with its weights.
        folder: where to.
        clean: evaluation images, at most; they are spread evenly over all.
        degraded: of these, how many are degraded as well.
    """
    done = folder / "prepared.json"
    asked = {"sha256": sha256_of_file(checkpoint / WEIGHTS), "clean_asked": clean, "degraded_asked": degraded}
    known: dict[str, Any] = json.loads(done.read_text()) if done.exists() else {}
    if asked.items() <= known.items():
        return known
    folder.mkdir(parents=True, exist_ok=True)
    info, images = model_info(MODEL), images_of(subject)
    network = network_of(subject)
    ef.load_checkpoint(network, checkpoint / WEIGHTS)
    exported = ef.export_onnx(network, input_size=info.input_size)
    onnx.save(exported, folder / "exported.onnx")
    fused = ef.fuse(exported)
    left = [block for block in fused.blocks if block.status != "fused"]
    if left:
        raise RuntimeError(f"{subject.name}: blocks that were not fused: {left}")
    onnx.save(fused.model, folder / "fused.onnx")
    np.save(folder / "calibrate.npy", _arrays(images.calibration)[0][:_CALIBRATION])

    every, labels = _arrays(images.judged)
    chosen = _spread(len(every), clean)
    every, labels = every[chosen], labels[chosen]
    few = _spread(len(every), degraded)
    preprocessing = info.preprocessing

    def top1(pixels: NDArray[np.uint8]) -> float:
        outputs = run(exported, _normalized(pixels, preprocessing))
        return 100 * float((outputs.logits.argmax(axis=1) == labels[few]).mean())

    worse = weakened(_pixels(every[few], preprocessing), top1)
    bad = _normalized(worse.images, preprocessing)
    references = {
        "clean": Reference(every, labels, run(exported, every)),
        "degraded": Reference(bad, labels[few], run(exported, bad)),
    }
    for name, reference in references.items():
        reference.save(folder / f"{name}.npz")
    found = asked | {
        "clean_images": len(every),
        "degraded_images": len(few),
        "degradation_strength": worse.strength,
        "clean_top1": 100 * float((references["clean"].outputs.logits.argmax(axis=1) == labels).mean()),
        "degraded_top1": worse.top1,
        "multiply_adds": multiply_adds(exported, every[:1]).total,
    }
    done.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _arrays(samples: Samples) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    batches = list(samples.batches(_BATCH))
    labels = [np.zeros(len(batch.images), np.int64) if batch.labels is None else batch.labels for batch in batches]
    return np.concatenate([batch.images for batch in batches]), np.concatenate(labels)


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Indices of ``wanted`` of ``count`` images, evenly spread: they are sorted by class, or take turns."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def _pixels(images: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """What `_normalized` made its input from."""
    values = (images.transpose(0, 2, 3, 1) * np.asarray(preprocessing.std) + np.asarray(preprocessing.mean)) * 255
    found: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found


def _normalized(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    values = (pixels / 255 - np.asarray(preprocessing.mean)) / np.asarray(preprocessing.std)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)
