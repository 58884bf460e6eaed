"""What callers give that is no such thing: each with its message, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from edgeformer.inference import Context, Model, load
from edgeformer.inference.arguments import milliseconds, require_mapping, whole_number
from tests.raising import raises

A = np.ones((2, 3), np.float32)


def test_whole_numbers() -> None:
    assert [whole_number(value, "n") for value in (3, True, np.int64(-7), 2**40)] == [3, 1, -7, 2**40]
    for wrong in (1.0, "1", None, np.float32(1)):
        with raises("EF101", "n is", repr(wrong), "whole number"):
            whole_number(wrong, "n")


def test_seconds_to_wait() -> None:
    given = (None, 0, -5, 0.0015, np.float64(2), float("inf"), 10**30)
    assert [milliseconds(wait) for wait in given] == [-1, 0, 0, 2, 2000, 2**31 - 1, 2**31 - 1]
    for wrong in (float("nan"), "1", [1]):
        with raises("EF101", "wait is", repr(wrong)):
            milliseconds(wrong)


@pytest.mark.parametrize("given", [{}, MappingProxyType({"a": A})])
def test_mappings_are_taken(given: Mapping[str, Any]) -> None:
    require_mapping(given, "inputs")


@pytest.fixture(scope="module")
def two(two_inputs: Path) -> Iterator[Model]:
    with load(two_inputs, contexts=2) as model:
        yield model


CALLS: list[Callable[[Model, Context, Any], Any]] = [
    lambda model, _, given: model.run(given),
    lambda model, _, given: model.run({"a": A, "b": A}, given),
    lambda model, _, given: model.enqueue(given),
    lambda _, context, given: context.run(given),
    lambda _, context, given: context.enqueue({"a": A, "b": A}, given),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", [[A, A], A, "a", 1])
def test_arrays_without_names_are_refused(call: Callable[..., Any], given: Any, two: Model) -> None:
    with two.context() as context, raises("EF802", type(given).__name__, "a dict"):
        call(two, context, given)
    assert np.array_equal(two(A, A)["sum"], 2 * A)


@pytest.mark.parametrize("given", [[[1.0, 2.0, 3.0]], 1, None, "a"])
def test_what_is_no_array_says_what_one_is(given: Any, two: Model) -> None:
    with raises("EF908", "a is a", type(given).__name__, "NumPy"):
        two(given, A)


@pytest.mark.parametrize("top", ["2", 2.0, [2]])
def test_a_number_of_classes_that_is_none(top: Any, small_model: Model) -> None:
    with raises("EF101", "top is", repr(top)):
        small_model.predict(np.zeros((4, 4, 3), np.uint8), top=top)


@pytest.mark.parametrize("pictures", [np.zeros((2, 4, 4, 3), np.uint8), {"a": 1}, iter([]), b"path", [None]])
def test_what_is_no_picture(pictures: Any, small_model: Model) -> None:
    for call in (small_model.predict, small_model.preprocess):
        with raises("EF863"):
            call(pictures)
