"""What builds tell an application, and that `verify` reads it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.bundle.application import ApplicationRecord, NormalizedImage, PlainImage
from edgeformer.bundle.manifest import Manifest, TensorRecord
from edgeformer.data import ArrayInput, Preprocessing
from edgeformer.pipeline.application import describe_application, preprocessing_of
from edgeformer.runtime import TensorInfo
from tests.present import present
from tests.raising import raises

DOCS = Path(__file__).parents[2] / "docs"
FLOAT, UINT8 = np.dtype(np.float32), np.dtype(np.uint8)
NCHW = {"x": TensorInfo(FLOAT, ("batch", 3, 33, 17))}
NHWC = {"pixels": TensorInfo(UINT8, (4, 33, 17, 3))}
LOGITS = {"logits": TensorInfo(FLOAT, ("batch", 10))}
ODD = Preprocessing(33, 17, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", 0.75)


def described(**changes: Any) -> ApplicationRecord:
    given: dict[str, Any] = {"preprocessing": ODD, "class_count": 10, "labels": None, "inputs": NCHW, "outputs": LOGITS}
    return describe_application(**{**given, **changes})


@pytest.mark.parametrize(
    ("outputs", "class_count", "task"),
    [
        (LOGITS, 10, "classification"),
        ({"y": TensorInfo(FLOAT, (1, 2))}, 2, "classification"),
        (LOGITS, None, "features"),  # a backbone's pooled features are no classes
        ({"y": TensorInfo(FLOAT, ("batch", 64, 7, 7))}, None, "features"),
        ({"y": TensorInfo(np.dtype(np.int64), ("batch", 10))}, 10, "features"),
        ({"y": TensorInfo(FLOAT, ("batch", 10, 1))}, 10, "features"),
        ({**LOGITS, "embedding": TensorInfo(FLOAT, ("batch", 64))}, 10, "features"),
    ],
)
def test_a_head_is_one_output_of_classes(outputs: dict[str, TensorInfo], class_count: int | None, task: str) -> None:
    assert described(outputs=outputs, class_count=class_count).task == task


def test_the_application_normalizes() -> None:
    image = present(described(labels=tuple("abcdefghij")).image)
    assert isinstance(image, NormalizedImage)
    assert (image.input, image.layout, image.channels, image.height, image.width) == ("x", "NCHW", "RGB", 33, 17)
    assert (image.resize_mode, image.crop_fraction) == ("bilinear", 0.75)
    assert (image.mean, image.std) == (ODD.mean, ODD.std)


@pytest.mark.parametrize("normalization", ["scale", "none"])
def test_the_application_does_not_normalize(normalization: Any) -> None:
    image = present(described(preprocessing=ODD.with_normalization(normalization), inputs=NHWC).image)
    assert isinstance(image, PlainImage)
    assert (image.input, image.layout, image.normalization) == ("pixels", "NHWC", normalization)


@pytest.mark.parametrize("normalization", ["mean_std", "scale", "none"])
def test_it_is_read_back(normalization: Any) -> None:
    given = ODD.with_normalization(normalization)
    assert preprocessing_of(manifest(described(preprocessing=given))) == given


def manifest(application: ApplicationRecord, *shapes: list[int | str]) -> Manifest:
    inputs = [TensorRecord(name=f"x{index}", dtype="float32", shape=shape) for index, shape in enumerate(shapes)]
    example = Manifest.model_validate_json((DOCS / "manifest.example.json").read_text(encoding="utf-8"))
    return example.model_copy(update={"application": application, "inputs": inputs})


def test_what_is_no_image_has_a_shape() -> None:
    application = described(preprocessing=ArrayInput((4, 5)), inputs={"x": TensorInfo(FLOAT, ("batch", 4, 5))})
    assert application.image is None
    assert preprocessing_of(manifest(application, ["batch", 4, 5])) == ArrayInput((4, 5))
    for shapes in ([], [["batch", "n"]], [[1, 2], [1, 2]]):
        with raises("EF702", "build the bundle again"):
            preprocessing_of(manifest(application, *shapes))
