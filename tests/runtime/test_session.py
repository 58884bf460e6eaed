from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgeformer.runtime import OnnxSession, TensorInfo, check_feeds, run_in_chunks, static_batch
from tests.raising import raises
from tests.runtime.conftest import scale_model

FLOAT = np.dtype(np.float32)
INPUTS = {"x": TensorInfo(FLOAT, ("batch", 3)), "y": TensorInfo(np.dtype(np.int64), (1,))}


def rows(count: int) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def test_tensor_info_reads_as_type_and_shape() -> None:
    assert str(INPUTS["x"]) == "float32 [batch, 3]"


def test_feeds_that_fit() -> None:
    check_feeds(INPUTS, {"x": rows(5), "y": np.zeros(1, np.int64)})


def test_every_misfit_is_listed() -> None:
    with raises("EF802", "'x'", "float32 [batch, 3]", "float64 [2, 3]", "'y'", "int64 [1]", "'z'", "'x', 'y'"):
        check_feeds(INPUTS, {"x": rows(2).astype(np.float64), "z": rows(1)})


@pytest.mark.parametrize("shape", [(2, 4), (2,), (2, 3, 1), ()])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with raises("EF802", "float32 [batch, 3]", f"float32 {list(shape)}"):
        check_feeds({"x": INPUTS["x"]}, {"x": np.zeros(shape, np.float32)})


def test_static_batch() -> None:
    assert static_batch(OnnxSession(scale_model(batch=4))) == 4
    assert static_batch(OnnxSession(scale_model())) is None


@pytest.mark.parametrize("batch", ["batch", 4])
@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_chunks_give_what_one_run_would(batch: Any, count: int) -> None:
    session = OnnxSession(scale_model(batch=batch))
    np.testing.assert_array_equal(run_in_chunks(session, {"x": rows(count)}, 4)["y"], 2 * rows(count))


def test_chunks_are_as_large_as_said() -> None:
    class Spy(OnnxSession):
        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.append(len(feeds["x"]))
            return super().run(feeds)

    seen: list[int] = []
    run_in_chunks(Spy(scale_model()), {"x": rows(7)}, 3)
    assert seen == [3, 3, 1]
    seen.clear()
    run_in_chunks(Spy(scale_model(batch=3)), {"x": rows(7)}, 3)
    assert seen == [3, 3, 3]


@pytest.mark.parametrize(("count", "batch"), [(0, 2), (3, 0)])
def test_nothing_to_chunk(count: int, batch: Any) -> None:
    with raises("EF802", {"x": count}, batch, "at least 1"):
        run_in_chunks(OnnxSession(scale_model()), {"x": rows(count)}, batch)


def test_inputs_that_disagree_about_the_samples() -> None:
    with raises("EF802", {"x": 2, "z": 3}):
        run_in_chunks(OnnxSession(scale_model()), {"x": rows(2), "z": rows(3)}, 2)
