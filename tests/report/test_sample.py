"""Recorded inputs as pictures again, whatever was done to them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgeformer.bundle import read_manifest
from edgeformer.report.sample import sample_picture
from tests.present import present
from tests.report.conftest import Document, add_file, edited, make_bundle

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def halves(height: int, width: int) -> npt.NDArray[np.float64]:
    """Pixels ``[height, width, 3]``: red on the left, dark blue on the right."""
    pixels = np.zeros((height, width, 3))
    pixels[:, : width // 2] = (200, 30, 10)
    pixels[:, width // 2 :] = (0, 0, 90)
    return pixels


def recorded(bundle: Path, array: npt.NDArray[Any], **image: Any) -> None:
    """Put an input into a bundle, and say what was done to the image."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {"input:input": array}
    np.savez_compressed(content, **arrays)

    def edit(document: Document) -> None:
        add_file(document, bundle, "parity.npz", content.getvalue())
        entry = document["application"]["image"]
        entry.update(image)
        if entry["normalization"] != "mean_std":
            del entry["mean"], entry["std"]

    edited(bundle, edit)


def picture(bundle: Path, sample: int = 0) -> npt.NDArray[np.uint8]:
    address = present(sample_picture(bundle, read_manifest(bundle), sample))
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize(
    ("normalization", "layout"),
    [("mean_std", "NCHW"), ("mean_std", "NHWC"), ("scale", "NCHW"), ("none", "NHWC")],
)
def test_the_picture_is_the_image(bundle: Path, normalization: str, layout: str) -> None:
    pixels = halves(64, 96)
    made = {"mean_std": (pixels / 255 - MEAN) / STD, "scale": pixels / 255, "none": pixels}[normalization]
    array = (made.transpose(2, 0, 1) if layout == "NCHW" else made)[None].astype(np.float32)
    if normalization == "none":
        array = array.astype(np.uint8)
    recorded(bundle, array, normalization=normalization, layout=layout)
    found = picture(bundle)
    assert found.shape == (64, 96, 3)
    assert np.abs(found[32, 10].astype(int) - (200, 30, 10)).max() < 12
    assert np.abs(found[32, 80].astype(int) - (0, 0, 90)).max() < 12


def test_large_images_become_small_ones(bundle: Path) -> None:
    recorded(bundle, np.zeros((2, 3, 300, 600), np.float32))
    assert picture(bundle, 1).shape == (128, 256, 3)


def test_only_what_the_manifest_lists_is_shown(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert sample_picture(bundle, manifest, 0) is not None
    assert sample_picture(bundle, manifest, 8) is None
    (bundle / "parity.npz").write_bytes((bundle / "parity.npz").read_bytes() + b" ")
    assert sample_picture(bundle, manifest, 0) is None
    (bundle / "parity.npz").unlink()
    assert sample_picture(bundle, manifest, 0) is None


def test_what_is_no_image_has_no_picture(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", lambda document: document["application"].update(image=None, task="features"))
    assert json.loads((bundle / "manifest.json").read_text())["application"]["image"] is None
    assert sample_picture(bundle, read_manifest(bundle), 0) is None
