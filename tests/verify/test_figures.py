from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgeformer.records.verification import Comparison
from edgeformer.verify.figures import Accumulator, worst
from tests.present import present
from tests.raising import raises


def compare(*pairs: Any) -> Comparison:
    accumulator = Accumulator("logits")
    for reference, candidate in pairs:
        accumulator.update(np.asarray(reference, np.float32), np.asarray(candidate, np.float32))
    return accumulator.result()


def test_figures_worked_out_by_hand() -> None:
    # reference (3, 4), (0, 5); candidate (3, 4), (3, 4)
    # difference (0, 0), (3, -1); dot 25 + 20; squares 50 and 50; noise 10
    figures = compare(([[3, 4], [0, 5]], [[3, 4], [3, 4]]))
    assert figures.max_abs == 3.0
    assert figures.max_abs_relative == 0.6
    assert figures.cosine == pytest.approx(45 / 50, rel=1e-15)
    assert figures.cosine_min == pytest.approx(20 / 25, rel=1e-15)
    assert figures.snr_db == pytest.approx(10 * math.log10(50 / 10), rel=1e-15)
    assert figures.top1_agreement == 1.0
    assert (figures.samples, figures.nonfinite) == (2, 0)


def test_top1_agreement_counts_samples() -> None:
    figures = compare(
        ([[1, 2, 0], [1, 2, 0], [5, 1, 0]], [[1, 2, 0], [3, 2, 0], [5, 1, 0]]), ([[0, 0, 1]], [[0, 1, 0]])
    )
    assert figures.top1_agreement == 0.5
    assert figures.samples == 4


def test_batches_add_up_to_the_whole() -> None:
    generator = np.random.default_rng(11)
    reference = generator.standard_normal((37, 5))
    candidate = reference + 0.1 * generator.standard_normal((37, 5))
    whole = compare((reference, candidate))
    parts = compare(*((reference[i : i + 8], candidate[i : i + 8]) for i in range(0, 37, 8)))
    for name, value in vars(whole).items():
        expected = value if value is None else pytest.approx(value, rel=1e-13)
        assert getattr(parts, name) == expected, name


def test_sums_are_float64() -> None:
    size = 100_003
    reference = np.full((1, size), 1000.1, np.float32)
    candidate = reference.copy()
    candidate[0, 0] += np.float32(0.125)
    noise = float(candidate[0, 0]) - float(reference[0, 0])
    figures = compare((reference, candidate))
    assert figures.snr_db == pytest.approx(10 * math.log10(size * float(reference[0, 1]) ** 2 / noise**2), rel=1e-12)
    assert 1 - present(figures.cosine) < 1e-12


def test_identical_outputs() -> None:
    figures = compare(([[1.5, -2.0]], [[1.5, -2.0]]))
    assert (figures.max_abs, figures.max_abs_relative, figures.cosine, figures.snr_db) == (0.0, 0.0, 1.0, math.inf)


@pytest.mark.parametrize(
    ("reference", "candidate", "relative", "cosine", "snr"),
    [
        ([[0, 0]], [[0, 0]], 0.0, 1.0, math.inf),
        ([[0, 0]], [[0, 2]], math.inf, 0.0, -math.inf),
        ([[0, 2]], [[0, 0]], 1.0, 0.0, 0.0),
        ([[1, 1]], [[-1, -1]], 2.0, -1.0, 10 * math.log10(2 / 8)),
    ],
)
def test_zeros_and_opposites(reference: Any, candidate: Any, relative: float, cosine: float, snr: float) -> None:
    figures = compare((reference, candidate))
    assert figures.max_abs_relative == relative
    assert figures.cosine == pytest.approx(cosine, abs=1e-15)
    assert figures.snr_db == pytest.approx(snr)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "candidate", "both"])
def test_one_value_that_is_not_finite_spoils_every_float_figure(bad: float, side: str) -> None:
    good = np.ones((3, 2), np.float32)
    spoilt = good.copy()
    spoilt[1, 0] = bad
    pair = (spoilt if side != "candidate" else good, spoilt if side != "reference" else good)
    figures = compare((good, good), pair, (good, good))
    for name in ("max_abs", "max_abs_relative", "cosine", "cosine_min", "snr_db"):
        assert math.isnan(getattr(figures, name)), name
    assert figures.nonfinite == (2 if side == "both" else 1)
    assert figures.top1_agreement == 8 / 9


@pytest.mark.parametrize("shape", [(2, 1), (2,), (2, 3, 4)])
def test_outputs_without_classes_have_no_top1(shape: tuple[int, ...]) -> None:
    assert compare((np.ones(shape), np.ones(shape))).top1_agreement is None


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_type_of_floats_is_compared_as_float64(dtype: Any) -> None:
    accumulator = Accumulator()
    accumulator.update(np.array([[1, 2]], dtype), np.array([[1, 4]], np.float32))
    assert accumulator.result().max_abs == 2.0


def test_integers_are_equal_or_not() -> None:
    accumulator = Accumulator("classes")
    accumulator.update(np.array([[1, 2, 3]]), np.array([[1, 2, 900]]))
    accumulator.update(np.array([[4, 5, 6]], np.int32), np.array([[4, 4, 6]], np.uint8))
    figures = accumulator.result()
    assert figures == Comparison(samples=2, nonfinite=0, integer_agreement=4 / 6)
    assert Comparison.model_validate_json(figures.model_dump_json()) == figures


def test_booleans_are_equal_or_not() -> None:
    accumulator = Accumulator()
    accumulator.update(np.array([[True, False], [True, True]]), np.array([[True, True], [True, True]]))
    assert accumulator.result().integer_agreement == 0.75


def test_large_integers_are_not_rounded() -> None:
    accumulator = Accumulator()
    accumulator.update(np.array([2**53, 5]), np.array([2**53 + 1, 5]))
    assert accumulator.result().integer_agreement == 0.5


def test_integers_without_elements() -> None:
    accumulator = Accumulator()
    accumulator.update(np.zeros((3, 0), int), np.zeros((3, 0), int))
    assert (accumulator.result().integer_agreement, accumulator.result().samples) == (1.0, 3)


@pytest.mark.parametrize(
    ("reference", "candidate"), [(np.zeros(2), np.zeros(2, int)), (np.zeros(2, bool), np.zeros(2, np.float32))]
)
def test_floats_and_integers_are_no_pair(reference: Any, candidate: Any) -> None:
    with raises("EF812", "'classes'", reference.dtype.name, candidate.dtype.name):
        Accumulator("classes").update(reference, candidate)


def test_an_output_keeps_its_kind_from_batch_to_batch() -> None:
    accumulator = Accumulator("classes")
    accumulator.update(np.zeros(2), np.zeros(2))
    with raises("EF812", "'classes'", "int64"):
        accumulator.update(np.zeros(2, int), np.zeros(2, int))


def test_large_float16_does_not_overflow() -> None:
    accumulator = Accumulator()
    accumulator.update(np.full((1, 4), 60000, np.float16), np.full((1, 4), -60000, np.float16))
    figures = accumulator.result()
    assert (figures.max_abs, figures.cosine) == (120000.0, -1.0)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((2, 3), (2, 3, 1)), ((), ())])
def test_shapes_that_differ(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with raises("EF812", "'logits'", *(list(shape) for shape in shapes)):
        compare(tuple(np.zeros(shape) for shape in shapes))


def test_nothing_to_compare() -> None:
    with raises("EF813", "'logits'"):
        compare()
    with raises("EF813", "'logits'"):
        compare((np.zeros((0, 3)), np.zeros((0, 3))))


def test_json_of_a_comparison_goes_there_and_back() -> None:
    figures = compare(([[1, 2]], [[1, 2]]))
    text = json.dumps(figures.model_dump(mode="json"), allow_nan=False)
    assert json.loads(text)["snr_db"] == "inf"
    assert Comparison.model_validate_json(text) == figures
    spoilt = compare(([[1, 2]], [[1, math.nan]])).model_dump(mode="json")
    assert json.loads(json.dumps(spoilt, allow_nan=False))["cosine"] == "nan"
    assert math.isnan(present(Comparison.model_validate(spoilt).cosine))


def test_worst_of_several_outputs() -> None:
    first, second = compare(([[3, 4]], [[3, 4.5]])), compare((np.ones((1, 2, 2)), np.full((1, 2, 2), 0.5)))
    both = worst({"a": first, "b": second})
    assert both.max_abs == 0.5
    assert both.max_abs_relative == 0.5
    assert both.cosine == first.cosine
    assert both.snr_db == second.snr_db == pytest.approx(10 * math.log10(4))
    assert both.top1_agreement == 1.0


def test_worst_of_floats_and_integers() -> None:
    accumulator = Accumulator()
    accumulator.update(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))
    logits, classes = compare(([[1, 2]], [[1, 2.5]])), accumulator.result()
    both = worst({"classes": classes, "logits": logits})
    assert (both.max_abs, both.integer_agreement, both.samples) == (0.5, 0.75, 1)
    assert worst({"classes": classes}).cosine is None
    assert worst({"logits": logits}).integer_agreement is None


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
def test_worst_keeps_nan_whatever_the_order(order: tuple[str, ...]) -> None:
    pair = {"good": compare(([[1.0, 2]], [[1, 2]])), "bad": compare(([[1.0, 2]], [[1, math.nan]]))}
    figures = worst({name: pair[name] for name in order})
    assert math.isnan(present(figures.cosine))
    assert math.isnan(present(figures.max_abs_relative))
    assert figures.nonfinite == 1


def test_worst_of_nothing() -> None:
    with raises("EF813"):
        worst({})
