"""Arrays from files and from Python: what they may be, that they stream, and what is wrong with the others."""

from __future__ import annotations

import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeformer.data import Preprocessing, Samples, open_samples
from tests.data.conftest import PLAIN
from tests.raising import raises

READY = np.random.default_rng(0).standard_normal((5, 3, 4, 6)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (5, 8, 7, 3), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5])


def _all(samples: Samples, batch_size: int = 2) -> NDArray[np.float32]:
    return np.concatenate([batch.images for batch in samples.batches(batch_size)])


def _labels(samples: Samples) -> list[int]:
    return [int(label) for batch in samples.batches(2) for label in (batch.labels if batch.labels is not None else ())]


def test_npy_of_floats_is_taken_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", READY)
    samples = open_samples(tmp_path / "x.npy", PLAIN)
    assert (len(samples), samples.labelled, samples.class_names) == (5, False, None)
    assert np.array_equal(_all(samples), READY)
    assert [len(batch.images) for batch in samples.batches(2)] == [2, 2, 1]
    assert np.array_equal(_all(open_samples(tmp_path / "x.npy", PLAIN, limit=3)), READY[:3])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_become_float32(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "x.npy", READY.astype(dtype))
    result = _all(open_samples(tmp_path / "x.npy", PLAIN))
    assert result.dtype == np.float32
    assert np.array_equal(result, READY.astype(dtype).astype(np.float32))


def _by_hand(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return PLAIN(Image.fromarray(image))


def test_uint8_is_preprocessed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    assert np.array_equal(_all(open_samples(tmp_path / "x.npy", PLAIN)), np.stack([_by_hand(i) for i in IMAGES]))


def test_grey_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey = IMAGES[..., 0]
    expected = np.stack([_by_hand(i) for i in grey])
    for name, array in (("grey", grey), ("channel", grey[..., None])):
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(_all(open_samples(tmp_path / f"{name}.npy", PLAIN)), expected)
    np.save(tmp_path / "alpha.npy", np.concatenate([IMAGES, grey[..., None]], axis=-1))
    colour = np.stack([_by_hand(i) for i in IMAGES])
    assert np.array_equal(_all(open_samples(tmp_path / "alpha.npy", PLAIN)), colour)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["images", "anything"])
def test_npz_with_labels(tmp_path: Path, save: Callable[..., None], key: str) -> None:
    content: dict[str, Any] = {key: READY, "labels": LABELS.astype(np.uint8)}
    save(tmp_path / "x.npz", **content)
    samples = open_samples(tmp_path / "x.npz", PLAIN)
    assert samples.labelled
    assert np.array_equal(_all(samples), READY)
    assert _labels(samples) == LABELS.tolist()
    assert _labels(open_samples(tmp_path / "x.npz", PLAIN, limit=2)) == [3, 1]


def test_npz_prefers_images_among_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(3), images=READY)
    assert np.array_equal(_all(open_samples(tmp_path / "x.npz", PLAIN)), READY)
    np.savez(tmp_path / "y.npz", one=READY, two=READY)
    with raises("EF409", tmp_path / "y.npz", "['one', 'two']", "'images'"):
        open_samples(tmp_path / "y.npz", PLAIN)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_files_are_read_row_by_row(tmp_path: Path, name: str) -> None:
    """64 rows of 192 KB: reading them all in batches of 2 needs the memory of a few rows."""
    rows = np.zeros((64, 3, 128, 128), np.float32)
    np.save(tmp_path / name, rows) if name.endswith("npy") else np.savez_compressed(tmp_path / name, rows)
    samples = open_samples(tmp_path / name, Preprocessing(128, 128))
    size = rows.nbytes
    del rows
    tracemalloc.start()
    for batch in samples.batches(2):
        assert batch.images.shape == (2, 3, 128, 128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 5


def _save(path: Path, array: NDArray[Any], **others: Any) -> Path:
    np.savez(path, images=array, **others) if path.suffix == ".npz" else np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("array", "code", "values"),
    [
        (READY[:0], "EF403", ()),
        (READY[0], "EF410", ("float32 [3, 4, 6]", "float32 [N, 3, height, width]")),
        (np.float32(3), "EF410", ("a single number", "float32 [N, 3, height, width]")),
        (IMAGES[:, :0], "EF410", ("uint8 [5, 0, 7, 3]",)),
        (np.array([{"a": 1}], object), "EF410", ("Python objects",)),
        (np.asfortranarray(READY), "EF410", ("Fortran order", "np.ascontiguousarray")),
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_files_that_are_refused_when_opened(
    tmp_path: Path, name: str, array: NDArray[Any], code: str, values: tuple[str, ...]
) -> None:
    with raises(code, name, *values):
        open_samples(_save(tmp_path / name, array), PLAIN)


@pytest.mark.parametrize(
    ("array", "code", "values"),
    [
        (READY[:, :, :3], "EF410", ("sample 0", "[3, 3, 6]", "[3, 4, 6]")),
        (READY.transpose(0, 2, 3, 1).copy(), "EF410", ("[4, 6, 3]",)),
        (IMAGES.transpose(0, 3, 1, 2).copy(), "EF410", ("uint8", "[3, 8, 7]")),
        (IMAGES.astype(np.int64), "EF410", ("int64",)),
        (np.where(np.arange(5)[:, None, None, None] == 3, np.nan, READY), "EF411", ("sample 3", "NaN")),
        (READY.astype(np.float64) * 1e300, "EF411", ("float32",)),
    ],
)
def test_files_that_are_refused_when_read(
    tmp_path: Path, array: NDArray[Any], code: str, values: tuple[str, ...]
) -> None:
    samples = open_samples(_save(tmp_path / "x.npy", array), PLAIN)
    with raises(code, "x.npy", *values):
        list(samples.batches(2))


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (LABELS[:4], ("[4]", "5 images", "[5]")),
        (LABELS.astype(np.float32), ("float32 [5]",)),
        (LABELS - 2, ("int64 [5]", "0 or above")),
        (LABELS[:, None], ("int64 [5, 1]", "[N]")),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, labels: NDArray[Any], values: tuple[str, ...]) -> None:
    with raises("EF412", tmp_path / "x.npz", *values):
        open_samples(_save(tmp_path / "x.npz", READY, labels=labels), PLAIN)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    npy = _save(tmp_path / "x.npy", READY)
    whole = npy.read_bytes()
    npy.write_bytes(whole[:-100])
    with raises("EF408", npy, "sample 4 of 5"):
        list(open_samples(npy, PLAIN).batches(2))
    for damaged in (b"", b"\x93NUMPY", b"no array" * 9, whole[:70], whole[:6] + b"\x09\x00" + whole[8:]):
        npy.write_bytes(damaged)
        with raises("EF408", npy):
            open_samples(npy, PLAIN)
    npz = _save(tmp_path / "x.npz", READY, labels=LABELS)
    whole = npz.read_bytes()
    npz.write_bytes(whole[: len(whole) // 2])
    with raises("EF408", npz):
        open_samples(npz, PLAIN)
    middle = len(whole) // 3
    npz.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with raises("EF408", npz):
        list(open_samples(npz, PLAIN).batches(2))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        np.save(tmp_path / "objects.npy", np.array([{}], object))
        archive.write(tmp_path / "objects.npy", "labels.npy")
        np.save(tmp_path / "ready.npy", READY)
        archive.write(tmp_path / "ready.npy", "images.npy")
    with raises("EF410", tmp_path / "x.npz", "labels", "Python objects"):
        open_samples(tmp_path / "x.npz", PLAIN)


def test_hashes_tell_data_labels_and_types_apart(tmp_path: Path) -> None:
    files = [
        _save(tmp_path / "a.npy", READY),
        _save(tmp_path / "b.npy", READY[::-1]),
        _save(tmp_path / "c.npy", READY.astype(np.float64)),
        _save(tmp_path / "d.npz", READY, labels=LABELS),
        _save(tmp_path / "e.npz", READY, labels=LABELS + 1),
    ]
    hashes = [open_samples(file, PLAIN).sha256() for file in files]
    assert len(set(hashes)) == 5
    assert open_samples(_save(tmp_path / "again.npz", READY), PLAIN).sha256() == hashes[0]
    assert open_samples(list(READY), PLAIN).sha256() == hashes[0]
    assert open_samples(files[0], PLAIN, limit=4).sha256() != hashes[0]


@pytest.mark.parametrize(
    "source",
    [
        READY,
        list(READY),
        tuple(READY),
        [READY[:2], READY[2:3], READY[3], READY[4:]],
        lambda: iter(READY),
        lambda: (row[None] for row in READY),
        iter(READY),
        (row for row in READY),
    ],
    ids=["array", "list", "tuple", "batches", "function", "generator function", "iterator", "generator"],
)
def test_arrays_from_python(source: Any) -> None:
    samples = open_samples(source, PLAIN)
    assert samples.count is None
    assert not samples.labelled
    for _ in range(2):
        assert np.array_equal(_all(samples, 3), READY)
    with pytest.raises(TypeError, match="is not known before they are read"):
        len(samples)


@pytest.mark.parametrize("one_shot", [False, True])
def test_pairs_have_labels(one_shot: bool) -> None:
    pairs = [(READY[:2], LABELS[:2]), (READY[2], 4), (READY[3:], list(LABELS[3:]))]
    samples = open_samples(iter(pairs) if one_shot else pairs, PLAIN, limit=4)
    assert samples.labelled
    assert np.array_equal(_all(samples), READY[:4])
    assert _labels(samples) == LABELS[:4].tolist()


def test_images_from_python_are_preprocessed() -> None:
    assert np.array_equal(_all(open_samples(iter(IMAGES), PLAIN)), np.stack([_by_hand(i) for i in IMAGES]))


def _endless(made: list[int]) -> Iterator[NDArray[np.float32]]:
    while True:
        made.append(1)
        yield READY[0]


def test_limit_ends_an_endless_iterator() -> None:
    made: list[int] = []
    assert len(_all(open_samples(_endless(made), PLAIN, limit=7))) == 7
    assert len(made) == 7


def test_a_function_is_asked_anew_and_streams() -> None:
    made: list[int] = []
    samples = open_samples(lambda: _endless(made), PLAIN, limit=6)
    assert len(made) == 1  # only whether there is anything, and whether it is labelled
    next(samples.batches(3))
    assert len(made) == 4


@pytest.mark.parametrize(
    ("source", "code", "values"),
    [
        ([], "EF403", ()),
        (iter(()), "EF403", ()),
        ([(READY[0], 1, 2)], "EF410", ("tuple of 3", "(array, labels)")),
        ([(READY[:2], [1])], "EF412", ("2 samples", "int64 [1]")),
        ([(READY[0], 0.5)], "EF412", ("1 samples", "float64 []")),
        ([(READY[0], -1)], "EF412", ("0 or above",)),
        (7, "EF402", (7, "image folder", ".npy", ".npz")),
    ],
)
def test_python_sources_that_are_refused(source: Any, code: str, values: tuple[object, ...]) -> None:
    with raises(code, *values):
        open_samples(source, PLAIN)


@pytest.mark.parametrize(
    ("source", "code", "values"),
    [
        ([READY[0], READY[0, :, :2]], "EF410", ("the arrays given", "sample 1", "[3, 2, 6]")),
        ([(READY[0], 1), READY[1]], "EF412", ("the arrays given", "sample 0 has a label", "sample 1 has none")),
        ([READY[0], "text"], "EF410", ("<U4",)),
    ],
)
def test_python_sources_that_go_wrong_later(source: Any, code: str, values: tuple[str, ...]) -> None:
    with raises(code, *values):
        list(open_samples(source, PLAIN).batches(8))


def test_other_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with raises("EF402", tmp_path / "x.zip", "image folder", ".npy", ".npz"):
        open_samples(tmp_path / "x.zip", PLAIN)
    with raises("EF401", "limit", "0 samples", "at least 1"):
        open_samples(tmp_path, PLAIN, limit=0)


def test_no_room_for_a_one_shot_iterator(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with raises("EF602", tempfile.gettempdir(), "No space left", "TMPDIR"):
        open_samples(iter(READY), PLAIN)


def test_arrays_that_change_while_they_are_read_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.npy", READY)
    samples = open_samples(path, PLAIN)
    samples.sha256()
    _save(path, READY + np.arange(5, dtype=np.float32)[:, None, None, None])
    with raises("EF161", path, "sample 1", "changed"):
        list(samples.batches(2))
    drawn = np.random.default_rng(0)
    samples = open_samples(lambda: (drawn.standard_normal((3, 4, 6)) for _ in range(3)), PLAIN)
    with raises("EF161", "sample 0", "changed"):
        list(samples.batches(2))


def test_samples_that_are_alike_are_counted_once(tmp_path: Path) -> None:
    samples = open_samples([READY[0]] * 4, PLAIN)
    _all(samples)
    assert samples.distinct == 1
