from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgeformer.runtime import OnnxSession, TensorInfo, check_feeds, run_in_chunks, static_batch
from edgeformer.runtime.session import as_input, channels_last
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


HALF = TensorInfo(np.dtype(np.float16), ("batch", 3, 2, 4))
BYTES = TensorInfo(np.dtype(np.uint8), (1, 2, 4, 3))


def test_images_become_what_an_input_takes() -> None:
    pixels = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    half = as_input(HALF, pixels / 7)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, (pixels / 7).astype(np.float16))
    given = as_input(BYTES, pixels + 1e-4)
    assert given.dtype == np.uint8
    np.testing.assert_array_equal(given, pixels.transpose(0, 2, 3, 1))
    assert as_input(BYTES, given) is given
    assert as_input(TensorInfo(np.dtype(np.float32), (1, 3, 2, 4)), pixels) is pixels


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan])
def test_normalized_images_are_no_pixels(value: float) -> None:
    with raises("EF441", "0 to 255", "uint8"):
        as_input(BYTES, np.full((1, 3, 2, 4), value, np.float32))


def test_channels_last() -> None:
    assert channels_last((1, 224, 224, 3))
    assert channels_last(("batch", "height", "width", 3))
    assert not channels_last((1, 3, 224, 224))
    assert not channels_last((1, 3, 8, 3))
    assert not channels_last((1, 224, 3))
