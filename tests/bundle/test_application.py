"""What the manifest tells an application: the fields are there or they are not, and nothing else is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edgeformer.bundle.application import ApplicationRecord

IMAGE: dict[str, Any] = {
    "input": "input",
    "layout": "NCHW",
    "channels": "RGB",
    "height": 111,
    "width": 37,
    "resize_mode": "bilinear",
    "crop_fraction": 0.9,
}
MEAN_STD: dict[str, Any] = {"normalization": "mean_std", "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}


def document(**image: Any) -> dict[str, Any]:
    return {"task": "classification", "labels": ["a", "b"], "image": {**IMAGE, **image}}


@pytest.mark.parametrize(
    "written",
    [
        document(**MEAN_STD),
        document(normalization="scale"),
        document(normalization="none", layout="NHWC"),
        {"task": "features", "labels": None, "image": None},
    ],
)
def test_it_is_written_as_it_is_read(written: dict[str, Any]) -> None:
    """Mean and std are there where the application applies them, and not null elsewhere."""
    record = ApplicationRecord.model_validate(written)
    assert json.loads(record.model_dump_json()) == written


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**MEAN_STD, "mean": [0.1, 0.2]}, "mean"),
        ({"normalization": "mean_std", "mean": [0, 0, 0]}, "std"),
        ({"normalization": "scale", "mean": [0, 0, 0]}, "mean"),
        ({"normalization": "imagenet"}, "'mean_std', 'scale', 'none'"),
        ({}, "normalization"),
        ({**MEAN_STD, "layout": "CHW"}, "layout"),
        ({**MEAN_STD, "channels": "BGR"}, "channels"),
        ({**MEAN_STD, "height": 0}, "height"),
        ({**MEAN_STD, "width": -1}, "width"),
        ({**MEAN_STD, "crop_fraction": 0.0}, "crop_fraction"),
        ({**MEAN_STD, "crop_fraction": 1.5}, "crop_fraction"),
        ({**MEAN_STD, "resize_mode": "nearest"}, "resize_mode"),
    ],
)
def test_an_image_that_cannot_be_prepared_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ApplicationRecord.model_validate(document(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"task": "poetry"}, "task"), ({"labels": []}, "empty list"), ({"labels": [1]}, "labels"), ({"topk": 5}, "topk")],
)
def test_other_fields_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ApplicationRecord.model_validate({**document(**MEAN_STD), **changes})


@pytest.mark.parametrize("left_out", ["task", "labels", "image"])
def test_every_field_is_written_out(left_out: str) -> None:
    written = document(**MEAN_STD)
    del written[left_out]
    with pytest.raises(ValidationError, match=left_out):
        ApplicationRecord.model_validate(written)
