"""Folders: classes and their order, streaming, hashes, and files that are not images."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeformer.data import Classes, Preprocessing, image_folder, open_samples
from tests.data.conftest import PLAIN, grey_image
from tests.raising import raises

MakeFolder = Callable[[dict[str, int]], Path]

THREE_CLASSES = {"b/2.png": 20, "b/1.png": 10, "a/x.png": 50, "c10/z.png": 90, "c10/y.bmp": 80, "b/deep/3.PNG": 30}


def _values(root: Path, batch_size: int = 2, limit: int | None = None) -> list[tuple[int, int | None]]:
    """Grey value and label of every image, in order."""
    found: list[tuple[int, int | None]] = []
    for batch in open_samples(root, PLAIN, limit=limit).batches(batch_size):
        assert batch.images.dtype == np.float32
        assert batch.images.shape[1:] == (3, 4, 6)
        labels = [None] * len(batch.images) if batch.labels is None else batch.labels.tolist()
        found += zip((batch.images[:, 0, 0, 0] * 255).round().astype(int).tolist(), labels, strict=True)
    return found


def test_classes_are_the_sorted_folders_and_come_by_turns(make_folder: MakeFolder) -> None:
    root = make_folder(THREE_CLASSES)
    samples = open_samples(root, PLAIN)
    assert samples.class_names == ("a", "b", "c10")
    assert samples.labelled
    assert len(samples) == samples.count == 6
    assert samples.name == str(root)
    assert _values(root) == [(50, 0), (10, 1), (80, 2), (20, 1), (90, 2), (30, 1)]


def test_limit_keeps_all_classes(make_folder: MakeFolder) -> None:
    assert _values(make_folder(THREE_CLASSES), limit=3) == [(50, 0), (10, 1), (80, 2)]


def test_a_flat_folder_has_no_labels(make_folder: MakeFolder) -> None:
    root = make_folder({"b.png": 2, "a.png": 1, "c.png": 3})
    samples = open_samples(str(root), PLAIN)
    assert (samples.labelled, samples.class_names, len(samples)) == (False, None, 3)
    assert _values(root) == [(1, None), (2, None), (3, None)]
    assert next(iter(samples.batches(2))).labels is None


def test_batches_have_the_size_asked_for_and_can_be_read_again(make_folder: MakeFolder) -> None:
    samples = open_samples(make_folder(THREE_CLASSES), PLAIN)
    assert [len(batch.images) for batch in samples.batches(4)] == [4, 2]
    labels = next(samples.batches(4)).labels
    assert labels is not None
    assert labels.dtype == np.int64
    first, second = (np.concatenate([b.images for b in samples.batches(4)]) for _ in range(2))
    assert np.array_equal(first, second)
    with raises("EF401", "batch size", 0, 1):
        samples.batches(0)


def test_images_are_read_when_their_turn_comes(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = image_folder.prepared_image

    def recording(content: bytes, path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
        read.append(path.name)
        return real(content, path, preprocessing)

    monkeypatch.setattr(image_folder, "prepared_image", recording)
    batches = open_samples(make_folder(THREE_CLASSES), PLAIN).batches(2)
    assert read == []
    next(batches)
    assert read == ["x.png", "1.png"]


def test_what_is_hidden_or_no_image_is_left_out(make_folder: MakeFolder) -> None:
    root = make_folder({"a/1.png": 1, "b/2.png": 2})
    (root / ".cache").mkdir()
    grey_image(9).save(root / "a" / ".thumb.png")
    (root / "a" / ".hidden").mkdir()
    grey_image(9).save(root / "a" / ".hidden" / "x.png")
    (root / "labels.txt").write_text("not an image")
    (root / "b" / "notes.md").write_text("not an image")
    assert open_samples(root, PLAIN).class_names == ("a", "b")
    assert _values(root) == [(1, 0), (2, 1)]


def test_a_class_folder_may_be_a_link(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a/1.png": 1})
    (tmp_path / "elsewhere").mkdir()
    grey_image(7).save(tmp_path / "elsewhere" / "7.png")
    (root / "z").symlink_to(tmp_path / "elsewhere")
    assert _values(root) == [(1, 0), (7, 1)]


def test_hash_is_of_content_order_labels_and_preprocessing(make_folder: MakeFolder) -> None:
    root = make_folder(THREE_CLASSES)
    samples = open_samples(root, PLAIN)
    before = samples.sha256()
    assert len(before) == 64
    assert open_samples(root, PLAIN).sha256() == before
    os.utime(root / "a" / "x.png", (0, 0))
    assert open_samples(root, PLAIN).sha256() == before
    moved = root.rename(root.with_name("moved"))
    assert open_samples(moved, PLAIN).sha256() == before
    seen = {before}
    seen.add(open_samples(moved, PLAIN, limit=5).sha256())
    seen.add(open_samples(moved, type(PLAIN)(4, 7, PLAIN.mean, PLAIN.std, "bilinear", 1.0)).sha256())
    (moved / "a").rename(moved / "d")
    seen.add(open_samples(moved, PLAIN).sha256())
    grey_image(51).save(moved / "d" / "x.png")
    seen.add(open_samples(moved, PLAIN).sha256())
    assert len(seen) == 5


def test_folders_without_images(tmp_path: Path, make_folder: MakeFolder) -> None:
    with raises("EF102", tmp_path / "nowhere"):
        open_samples(tmp_path / "nowhere", PLAIN)
    (tmp_path / "empty").mkdir()
    with raises("EF403", tmp_path / "empty", ".bmp, "):
        open_samples(tmp_path / "empty", PLAIN)
    root = make_folder({"a/1.png": 1})
    (root / "b").mkdir()
    with raises("EF403", root, ".bmp, ") as caught:
        open_samples(root, PLAIN)
    assert re.search(r"\bb\b", str(caught.value).replace(str(root), ""))


def test_images_beside_class_folders_are_ambiguous(make_folder: MakeFolder) -> None:
    with raises("EF404", "(stray.png, ...)", "(a, ...)"):
        open_samples(make_folder({"a/1.png": 1, "stray.png": 2}), PLAIN)


def _check_refusal(root: Path, code: str, *values: object) -> None:
    with raises(code, *values):
        list(open_samples(root, PLAIN).batches(8))


def test_damaged_images_are_named(make_folder: MakeFolder) -> None:
    root = make_folder({"1.png": 1, "2.png": 2})
    whole = (root / "2.png").read_bytes()
    for damaged in (b"no image at all", whole[:40], whole[: len(whole) // 2], whole[:50] + b"\0" * 9 + whole[59:]):
        (root / "2.png").write_bytes(damaged)
        _check_refusal(root, "EF405", root / "2.png")


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=90)
    path.write_bytes(path.read_bytes()[:-2000])
    _check_refusal(tmp_path, "EF405", path, "image file is truncated")  # Pillow's words


@pytest.mark.parametrize("size", [(20000, 5000), (40000, 5000)])
def test_decompression_bombs_are_named_before_they_are_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    """One size Pillow only warns of, one that it refuses itself."""
    path = tmp_path / "bomb.png"
    Image.new("1", size).save(path)
    assert path.stat().st_size < 100_000
    _check_refusal(tmp_path, "EF406", path, "pixels")


def test_an_image_that_vanishes_is_named(make_folder: MakeFolder) -> None:
    root = make_folder({"1.png": 1, "2.png": 2})
    samples = open_samples(root, PLAIN)
    (root / "2.png").unlink()
    with raises("EF405", root / "2.png"):
        list(samples.batches(2))
    with raises("EF405", root / "2.png"):
        samples.sha256()


def test_an_image_that_preprocessing_refuses_is_named(tmp_path: Path) -> None:
    Image.new("F", (6, 4)).save(tmp_path / "float.tiff")
    _check_refusal(tmp_path, "EF407", tmp_path / "float.tiff", "floating-point")


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("0 .5 .5 .1 .1\n")
    return root


DETECTION = {"images/val/1.png": 1, "images/val/2.png": 2, "images/train/9.png": 9}


def test_a_data_set_for_detection_has_images_without_labels(make_folder: MakeFolder) -> None:
    root = _touch(make_folder(DETECTION), "labels/val/1.txt", "labels/train/9.txt", "data.yaml")
    (root / "masks").mkdir()
    grey_image(200).save(root / "masks" / "1.png")  # not one of the images
    assert open_samples(root, PLAIN).labelled is False
    assert _values(root) == [(9, None), (1, None), (2, None)]
    assert _values(root, limit=2) == [(9, None), (1, None)]


def test_a_data_set_for_detection_by_splits(make_folder: MakeFolder) -> None:
    root = _touch(
        make_folder({"train/images/1.png": 1, "valid/images/2.png": 2}), "train/labels/1.txt", "valid/labels/2.txt"
    )
    assert _values(root) == [(1, None), (2, None)]


def test_images_beside_their_label_files(make_folder: MakeFolder) -> None:
    root = _touch(make_folder({"1.png": 1, "2.png": 2}), "labels/1.txt", "1.txt", "classes.txt")
    assert _values(root) == [(1, None), (2, None)]


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ({"train/cat/1.png": 1, "val/cat/2.png": 2}, ["{root}/train", "{root}/val"]),
        ({"images/cat/1.png": 1}, ["{root}/images"]),
        ({"test/cat/1.png": 1, "train2017/1.png": 2}, ["{root}/test"]),
        ({"cat/1.png": 1, "dog/2.png": 2, "test/3.png": 3}, ["test/"]),
    ],
)
def test_splits_are_no_classes(make_folder: MakeFolder, images: dict[str, int], named: list[str]) -> None:
    root = make_folder(images)
    with raises("EF462", root, *(value.format(root=root) for value in named)):
        open_samples(root, PLAIN)
    # Calibration needs no labels.
    found = list(open_samples(root, PLAIN, labels=False).batches(8))
    assert sum(len(batch.images) for batch in found) == len(images)
    assert found[0].labels is None


def test_a_label_of_the_model_is_a_class_whatever_its_name(make_folder: MakeFolder) -> None:
    root = make_folder({"test/1.png": 1, "train/2.png": 2})
    samples = open_samples(root, PLAIN, classes=Classes(3, ("train", "plane", "test")))
    (batch,) = samples.batches(4)
    assert batch.labels is not None
    assert batch.labels.tolist() == [2, 0]


def test_what_cannot_be_read_is_counted_and_named(make_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    root = make_folder({f"{number}.png": number for number in range(1, 9)})
    (root / "empty.jpg").write_bytes(b"")
    (root / "photo.heic").write_bytes(b"heic")
    (root / "link.png").symlink_to(root / "nowhere.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    assert len(_values(root)) == 8
    assert "4 of 12 files left out" in caplog.text
    for named in ("empty.jpg (empty)", "photo.heic (.heic is not read", "link.png (a link to nothing)", "loop.png ("):
        assert named in caplog.text


def test_classes_with_images_left_out(make_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    root = make_folder({"a/1.png": 1, "b/2.png": 2})
    (root / "b" / "3.png").write_bytes(b"")
    assert _values(root) == [(1, 0), (2, 1)]
    assert "1 of 3 files left out: 3.png (empty)" in caplog.text
    (root / "b" / "2.png").unlink()
    with raises("EF403", root, "3.png (empty)"):
        open_samples(root, PLAIN)


def test_folders_that_are_not_entered_are_named(
    make_folder: MakeFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a/1.png": 1, "a/locked/2.png": 2, "b/3.png": 3})
    (root / "b" / "again").symlink_to(root)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _values(root) == [(1, 0), (3, 1)]
    assert "2 of 4 files left out: locked (a folder that cannot be read), again (a link to a folder" in caplog.text


def test_folders_that_are_not_entered_are_no_images(make_folder: MakeFolder) -> None:
    root = make_folder({"1.png": 1})
    (root / "cache").mkdir()
    (root / "cache" / "link").symlink_to(root)
    assert _values(root) == [(1, None)]


def test_only_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"heic")
    with raises("EF403", tmp_path, "1 of 1 files left out: a.heic"):
        open_samples(tmp_path, PLAIN)


def test_formats_that_are_read(tmp_path: Path) -> None:
    for name in ("a.gif", "b.webp", "c.TIFF", "d.jfif", "e.pnm"):
        grey_image(100).save(tmp_path / name, {"d.jfif": "JPEG", "e.pnm": "PPM"}.get(name))
    found = _values(tmp_path)
    assert len(found) == 5
    assert all(abs(value - 100) <= 2 for value, _ in found)


def test_an_animation_is_its_first_image(tmp_path: Path) -> None:
    frames = [grey_image(value) for value in (50, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert _values(tmp_path) == [(50, None)]


def test_names_that_are_no_utf8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    grey_image(5).save(folder / os.fsdecode(b"\xff.png"), "PNG")
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    samples = open_samples(folder, PLAIN)
    assert len(samples) == 1
    assert len(samples.sha256()) == 64
    # What a log takes, whatever its encoding is.
    assert caplog.text.isascii()
    assert "caf\\xe9: 1 of 2 files left out: \\xfe.png" in caplog.text


def test_an_image_that_changes_while_it_is_read_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"1.png": 1, "2.png": 2})
    samples = open_samples(root, PLAIN)
    before = samples.sha256()
    assert len(list(samples.batches(2))) == 1
    assert samples.distinct == 2
    grey_image(3).save(root / "2.png")
    for read in (samples.sha256, lambda: list(samples.batches(2))):
        with raises("EF161", root / "2.png", "changed"):
            read()
    grey_image(2).save(root / "2.png")
    assert samples.sha256() == before
