"""Arrays for inputs that are no images: taken as they are, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.data import ArrayInput, open_samples
from tests.raising import raises

ROWS = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


def read(source: Any, shape: tuple[int, ...] = (7,), **options: Any) -> np.ndarray:
    return np.concatenate([batch.images for batch in open_samples(source, ArrayInput(shape), **options).batches(2)])


@pytest.mark.parametrize(
    "source",
    [ROWS, list(ROWS), [ROWS[:2], ROWS[2:]], ROWS.astype(np.float64), [(row, 0) for row in ROWS]],
    ids=["a batch", "samples", "batches", "float64", "labelled"],
)
def test_samples_and_batches_are_told_apart_by_the_shape(source: Any) -> None:
    np.testing.assert_array_equal(read(source), ROWS)
    np.testing.assert_array_equal(read(iter(source)), ROWS)
    np.testing.assert_array_equal(read(source, limit=3), ROWS[:3])


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3, 2, 2, 1)])
def test_files(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((3, *shape)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", images=values, labels=np.arange(3))
    np.testing.assert_array_equal(read(tmp_path / "a.npy", shape), values)
    samples = open_samples(tmp_path / "a.npz", ArrayInput(shape))
    assert [batch.labels.tolist() for batch in samples.batches(2) if batch.labels is not None] == [[0, 1], [2]]
    other = open_samples(tmp_path / "a.npz", ArrayInput((*shape, 1)))
    with raises("EF410", "['N'", "no image"):
        next(other.batches(1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.complex64])
def test_other_types_are_refused(dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS.astype(dtype))
    for source in (tmp_path / "a.npy", ROWS.astype(dtype)):
        with raises("EF410", np.dtype(dtype).name, "float32 ['N', 7]"):
            read(source)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    rows = ROWS.astype(np.float64)
    rows[3, 2] = value
    with raises("EF411", "sample 3", "NaN"):
        read(rows)


def test_no_samples_and_folders_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS[:0])
    with raises("EF403", tmp_path / "a.npy"):
        read(tmp_path / "a.npy")
    np.save(tmp_path / "one.npy", np.float32(1))
    with raises("EF410", "a single number"):
        read(tmp_path / "one.npy")
    with raises("EF841", tmp_path, "['N', 7]", ".npy"):
        read(tmp_path)
