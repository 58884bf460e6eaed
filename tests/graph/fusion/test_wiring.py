"""Which weights and biases make which channels."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer.graph.fusion.geometry import RejectedError
from edgeformer.graph.fusion.projection import Link, Route
from edgeformer.graph.fusion.stacking import Columns
from edgeformer.graph.fusion.wiring import Wiring


def route(*branches: tuple[Link, ...]) -> Route:
    return Route("x", branches, frozenset())


def test_plain() -> None:
    wiring = Wiring.plain(3, linear=True, bias=True)
    np.testing.assert_array_equal(wiring.columns, [0, 1, 2])
    np.testing.assert_array_equal(wiring.biases, [[0, 1, 2]])
    assert (wiring.width, wiring.entries) == (3, 3)
    assert Wiring.plain(3, linear=True, bias=False).biases.shape == (0, 3)


def test_shared_tensors_are_counted_once_and_missing_biases_are_none() -> None:
    branches = route(
        (Link("gemm", 0, ("w", "b"), True),),
        (Link("gemm", 1, ("w",), True), Link("bias", 2, ("other",))),
        (Link("matmul", 3, ("v",)),),
    )
    shapes = {"w": (2, 5), "v": (5, 1), "b": (2,), "other": (1, 2)}

    wiring = Wiring.of(branches, (2, 2, 1), Columns((4, 0, 1, 2, 3), 2), shapes)

    assert wiring.weights == {"w": (0, 2), "v": (2, 3)}
    assert wiring.offsets == {"b": (0, 2), "other": (2, 4)}
    assert (wiring.width, wiring.entries, wiring.linear) == (3, 4, True)
    np.testing.assert_array_equal(wiring.columns, [2, 0, 1, 0, 1])
    np.testing.assert_array_equal(wiring.biases, [[-1, 0, 1, 2, 3]])


def test_a_weight_read_in_two_orientations_is_refused() -> None:
    branches = route((Link("gemm", 0, ("w",), True),), (Link("matmul", 1, ("w",)),))
    with pytest.raises(RejectedError, match="two ways"):
        Wiring.of(branches, (2, 2), None, {"w": (2, 2)})


def test_what_has_another_size_is_no_bias() -> None:
    branches = route((Link("matmul", 0, ("w",)), Link("bias", 1, ("position",))))
    with pytest.raises(RejectedError, match="not a bias of 4 channels"):
        Wiring.of(branches, (4,), None, {"w": (2, 4), "position": (8, 4)})
