from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeformer.verify.recording import Recording, Store
from tests.raising import raises


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [
        rng.standard_normal((2, 3)).astype(np.float32),
        rng.integers(0, 9, (2, 5, 7)),
        rng.random((2, 3, 1)) < 0.5,
        np.zeros((0, 4), np.float16),
    ]


@pytest.mark.parametrize(("limit", "files"), [(10_000, 0), (24 + 560, 1), (24, 2), (0, 3), (-1, 4)])
def test_what_goes_in_comes_out(limit: int, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Store(limit) as store:
        numbers = [store.put(array) for array in arrays()]
        assert store.files == files
        assert len(list(tmp_path.glob("*/*.npy"))) == files
        for number, array in zip(numbers, arrays(), strict=True):
            found = store.get(number)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_is_written_again_stays_as_it_was() -> None:
    array = np.ones(3)
    with Store() as store:
        number = store.put(array)
        array[:] = 2.0
        np.testing.assert_array_equal(store.get(number), [1.0, 1.0, 1.0])


def test_what_is_dropped_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Store(limit=80) as store:
        first, second = store.put(np.zeros(10)), store.put(np.ones(10))
        assert store.files == 1
        store.drop(first)
        third = store.put(np.full(10, 3.0))
        assert store.files == 1
        store.drop(second)
        assert list(tmp_path.glob("*/*.npy")) == []
        np.testing.assert_array_equal(store.get(third), np.full(10, 3.0))
        with pytest.raises(KeyError):
            store.get(first)


def test_files_go_when_an_error_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail() -> None:
        with Store(limit=0) as store:
            store.put(np.zeros(2))
            assert len(list(tmp_path.iterdir())) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    named = (tmp_path / "edgeformer-", "40 bytes", "No space left on device", "TMPDIR")
    with Store(limit=0) as store, raises("EF602", *named):
        store.put(np.zeros(5))


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with Store(limit=0) as store, raises("EF602", tmp_path / "gone", "8 bytes", "TMPDIR"):
        store.put(np.zeros(1))


def test_a_recording_gives_batches_by_name_and_keeps_what_it_is_told() -> None:
    with Store(limit=16) as store:
        recording = Recording(store)
        for index in range(3):
            recording.append({"a": np.full(2, index, np.float32), "b": np.array([index])})
        assert {name: array.tolist() for name, array in recording[2].items()} == {"a": [2.0, 2.0], "b": [2]}
        files = store.files
        recording.keep(["b"])
        assert [list(recording[index]) for index in range(3)] == [["b"]] * 3
        assert recording[1]["b"].tolist() == [1]
        assert store.files < files
        recording.keep([])
        assert store.files == 0
        assert recording[0] == {}
