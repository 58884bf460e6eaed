"""What `edgeformer inspect` says of a bundle to somebody who writes an application for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeformer.bundle import Manifest
from edgeformer.cli.inspect import application_lines

EXAMPLE = Manifest.model_validate_json(
    (Path(__file__).parents[2] / "docs" / "manifest.example.json").read_text(encoding="utf-8")
)
IMAGE: dict[str, Any] = {
    "input": "input",
    "layout": "NHWC",
    "channels": "RGB",
    "height": 112,
    "width": 112,
    "resize_mode": "bicubic",
    "crop_fraction": 0.875,
}


def lines(**application: Any) -> list[str]:
    document = EXAMPLE.model_dump()
    document["application"].update(application)
    return list(application_lines(Manifest.model_validate(document)))


def test_a_classifier() -> None:
    assert lines() == [
        "task        classification, 10 labels: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "input       input: float32 [batch, 3, 112, 112], NCHW, RGB (x / 255 - mean) / std, bilinear",
        "output      logits: float32 [batch, 10]",
    ]


def test_many_labels_are_counted_and_not_all_listed() -> None:
    shown = lines(labels=tuple(f"class number {index}" for index in range(1000)))[0]
    assert shown.startswith("task        classification, 1000 labels: class number 0, class number 1")
    assert len(shown) < 140


@pytest.mark.parametrize(("normalization", "words"), [("none", "pixels 0 to 255"), ("scale", "x / 255")])
def test_features_of_images_that_are_not_normalized(normalization: str, words: str) -> None:
    task, given, _ = lines(task="features", labels=None, image={**IMAGE, "normalization": normalization})
    assert task == "task        features, no labels"
    assert given.endswith(f"NHWC, RGB {words}, bicubic, centre crop of 0.875")


def test_what_is_no_image_is_a_tensor() -> None:
    assert lines(image=None)[1] == "input       input: float32 [batch, 3, 112, 112]"
