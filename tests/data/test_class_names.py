"""Folders mean the classes that their names say, or the user is told what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.data import Classes, open_samples, read_labels
from edgeformer.data.class_names import indices_of_folders
from tests.data.conftest import PLAIN, grey_image
from tests.raising import raises

HERE = Path("data")
TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.parametrize(
    ("names", "classes", "indices"),
    [
        (["3", "7"], Classes(10), [3, 7]),
        (["003", "007"], Classes(10), [3, 7]),
        (["0", "1", "10", "2"], Classes(11), [0, 1, 10, 2]),
        (["3", "7"], None, [3, 7]),
        (["cat", "dog"], Classes(2), [0, 1]),
        (["cat", "dog"], None, [0, 1]),
        (["seven", "three"], Classes(10, TEN), [7, 3]),
        (["3", "7"], Classes(10, TEN), [3, 7]),
        (["1", "2"], Classes(2, ("2", "1")), [1, 0]),
        (["caf\u00e9"], Classes(2, ("tea", "cafe\u0301")), [1]),
        (["a"], Classes(None, ("b", "a")), [1]),
        (["3"], Classes(), [3]),
    ],
)
def test_names_tell_the_class(names: list[str], classes: Classes | None, indices: list[int]) -> None:
    assert indices_of_folders(HERE, names, classes) == indices


@pytest.mark.parametrize(
    ("names", "classes", "values"),
    [
        (["cat", "dog"], Classes(10), ("2 class folders", "cat, dog", "10 classes", "--labels")),
        (["cat", "dog"], Classes(), ("unknown", "--labels")),
        (["class_3", "class_7"], Classes(10), ("class_3", "--labels")),
        (["one", "three", "twelve"], Classes(10, TEN), ("1 of 3", "twelve", "zero, one", "--labels")),
        (list("abcdefghij"), Classes(10, TEN), ("10 of 10", "--labels")),
        (["1", "10", "2"], Classes(10), ("10", "counted from 0", "--labels")),
        (["3", "03"], Classes(10), ("3, 03", "same class")),
        (["3", "three"], Classes(10), ("2 class folders",)),
    ],
)
def test_names_that_do_not_tell(names: list[str], classes: Classes, values: tuple[str, ...]) -> None:
    with raises("EF461", HERE, *values):
        indices_of_folders(HERE, names, classes)


def test_labels_must_be_as_many_as_the_classes() -> None:
    with raises("EF463", "10 labels", "2 classes"):
        Classes(2, TEN)


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\n\n",
        "cat\r\n dog ",
        '["cat", "dog"]',
        '{"0": "cat", "1": "dog"}',
        '{"dog": 1, "cat": 0}',
        '{"id2label": {"1": "dog", "0": "cat"}, "hidden_size": 4}',
    ],
)
def test_labels_are_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels").write_text(content)
    assert read_labels(tmp_path / "labels") == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"", "empty"),
        (b"cat\n\ndog", "class 1 has no name"),
        (b"cat\ndog\ncat", "'cat' is there twice"),
        (b"\xff\xfe", "codec"),
        (b"[" * 100_000, "100000 levels"),
        (b'["a", 3]', "neither"),
        (b'{"0": "a", "2": "b"}', "0 to 1"),
        (b'{"a": "b"}', "0 to 0"),
        (b'{"a": 0, "b": 1, "c": 1}', "two names have the same index"),
        (b'{"a": 1, "a": 2}', "twice"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with raises("EF463", tmp_path / "labels.txt", value):
        read_labels(tmp_path / "labels.txt")


def test_folders_get_the_labels_of_the_model(tmp_path: Path) -> None:
    for name, value in (("seven", 70), ("three", 30)):
        (tmp_path / name).mkdir()
        grey_image(value).save(tmp_path / name / "x.png")
    samples = open_samples(tmp_path, PLAIN, classes=Classes(10, TEN))
    (batch,) = samples.batches(4)
    assert batch.labels is not None
    assert dict(zip(batch.labels.tolist(), (batch.images[:, 0, 0, 0] * 255).round().tolist(), strict=True)) == {
        7: 70.0,
        3: 30.0,
    }
    assert samples.class_names == TEN
    with raises("EF461", tmp_path, "10 classes"):
        open_samples(tmp_path, PLAIN, classes=Classes(10))
    assert not open_samples(tmp_path, PLAIN, classes=Classes(10), labels=False).labelled
