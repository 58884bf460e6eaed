"""Valid inputs of every kind, small, from which the hostile ones are made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeformer.data import Preprocessing
from edgeformer.export import export_onnx
from edgeformer.graph.onnx_files import save_model
from edgeformer.models import create_model

__all__ = ["CONFIGURATION", "Seeds", "make_seeds"]

# The smallest BiFormer with a routing block: a run of it takes milliseconds.
CONFIGURATION: dict[str, Any] = {
    "depths": (1, 1, 1, 1),
    "dims": (32, 32, 32, 32),
    "regions": 2,
    "topks": (1, 2, 4, -2),
    "num_classes": 4,
}
MODEL = "biformer_nano"


@dataclass(frozen=True)
class Seeds:
    """Paths of the valid inputs.

    Attributes:
        model: an exported network.
        checkpoints: its weights, as safetensors and as what `torch.save` writes.
        arrays: calibration images, as ``.npy`` and ``.npz`` with labels.
        images: a folder of a few images of several formats.
        recipe: of quantization.
        preprocessing: of images.
    """

    model: Path
    checkpoints: tuple[Path, ...]
    arrays: tuple[Path, ...]
    images: Path
    recipe: Path
    preprocessing: Path


def make_seeds(folder: Path) -> Seeds:
    """Make the inputs in ``folder``, or find those that an earlier call made."""
    seeds = Seeds(
        model=folder / "model.onnx",
        checkpoints=(folder / "weights.safetensors", folder / "weights.pth"),
        arrays=(folder / "images.npy", folder / "images.npz"),
        images=folder / "images",
        recipe=folder / "recipe.json",
        preprocessing=folder / "preprocessing.json",
    )
    done = folder / "done"
    if not done.exists():
        _make(seeds, folder)
        done.touch()
    return seeds


def _make(seeds: Seeds, folder: Path) -> None:
    import safetensors.torch
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = create_model(MODEL, **CONFIGURATION).eval()
    size = (64, 64)
    save_model(export_onnx(model, input_size=size), seeds.model)
    safetensors.torch.save_file(model.state_dict(), seeds.checkpoints[0])
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "best": np.float64(0.5)}, seeds.checkpoints[1])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 70, 66, 3), dtype=np.uint8)
    np.save(seeds.arrays[0], rng.standard_normal((3, 3, *size)).astype(np.float32))
    np.savez_compressed(seeds.arrays[1], images=images, labels=np.arange(3))
    seeds.images.mkdir(exist_ok=True)
    for image, suffix in zip(images, ("png", "jpg", "bmp"), strict=True):
        Image.fromarray(image).save(seeds.images / f"image.{suffix}")
    recipe = {"schema_version": 1, "name": "fuzz", "observer": {"kind": "mse"}, "balance": True, "target_snr_db": 30}
    seeds.recipe.write_text(json.dumps(recipe))
    seeds.preprocessing.write_text(json.dumps(Preprocessing(*size).to_dict()))
