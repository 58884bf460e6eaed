"""A bundle with several inputs, one of which is an image: the manifest says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgeformer.data import Preprocessing
from edgeformer.inference import load
from tests.inference.conftest import IMAGE, SIZE, make_bundle
from tests.raising import raises
from tests.runtime.conftest import make_model

PICTURE = np.random.default_rng(3).integers(0, 256, (20, 12, 3), np.uint8)


def scaled(size: int | str = SIZE) -> onnx.ModelProto:
    """out = factor * photo; the factor comes first."""
    return make_model(
        [helper.make_node("Mul", ["factor", "photo"], ["out"])],
        [("factor", TensorProto.FLOAT, [1]), ("photo", TensorProto.FLOAT, ["batch", 3, size, size])],
        [("out", TensorProto.FLOAT, ["batch", 3, size, size])],
    )


def test_pictures_go_into_the_input_that_the_manifest_names(tmp_path: Path) -> None:
    image = {**IMAGE, "input": "photo"}
    with load(make_bundle(tmp_path / "b", scaled(), task="features", labels=None, image=image)) as model:
        found = model.describe()
        assert [one.name for one in found.inputs] == ["factor", "photo"]
        assert (found.takes_images, found.image_input) == (True, "photo")
        photo = model.preprocess([PICTURE, PICTURE[::-1]])
        expected = np.stack([Preprocessing(SIZE, SIZE)(Image.fromarray(one)) for one in (PICTURE, PICTURE[::-1])])
        assert np.array_equal(photo, expected)
        factor = np.array([2], np.float32)
        assert np.array_equal(model(factor, photo), 2 * photo)


def test_no_input_that_is_an_image(tmp_path: Path) -> None:
    with load(make_bundle(tmp_path / "b", scaled(), task="features", labels=None, image=None)) as model:
        assert model.describe().image_input is None
        with raises("EF765", tmp_path / "b" / "typed.onnx", "prepare the input yourself"):
            model.preprocess(PICTURE)


def test_an_input_whose_size_is_free(tmp_path: Path) -> None:
    image = {**IMAGE, "input": "photo"}
    with (
        load(make_bundle(tmp_path / "b", scaled("side"), task="features", labels=None, image=image)) as model,
        raises("EF765", "photo", "prepare it yourself"),
    ):
        model.preprocess(PICTURE)


@pytest.mark.parametrize("name", ["other", "out"])
def test_an_input_that_the_model_does_not_have(name: str, tmp_path: Path) -> None:
    image: dict[str, Any] = {**IMAGE, "input": name}
    with raises("EF759", name):
        load(make_bundle(tmp_path / "b", scaled(), task="features", labels=None, image=image))


def test_classes_of_pictures_need_one_input(tmp_path: Path) -> None:
    image = {**IMAGE, "input": "photo"}
    with (
        load(make_bundle(tmp_path / "b", scaled(), labels=None, image=image)) as model,
        raises("EF766", "2 inputs"),
    ):
        model.predict(PICTURE)
