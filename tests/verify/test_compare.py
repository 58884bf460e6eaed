from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgeformer.runtime import OnnxSession, TensorInfo
from edgeformer.verify import compare_models
from edgeformer.verify.batches import BatchLike
from edgeformer.verify.compare import check_types, match_names
from tests.raising import raises
from tests.verify.conftest import FunctionSession, Labelled, images, linear_model


def test_two_graphs_that_differ_by_a_known_amount() -> None:
    weight = np.array([[1.0, 0.0], [0.0, 2.0]])
    changed = weight + np.array([[0.0, 0.0], [0.0, 0.5]])
    x = np.array([[1.0, 1.0], [3.0, -2.0]], np.float32)
    figures = compare_models(OnnxSession(linear_model(weight)), OnnxSession(linear_model(changed)), [x])["logits"]
    # (1, 2), (3, -4) against (1, 2.5), (3, -5)
    assert figures.max_abs == 1.0
    assert figures.max_abs_relative == 0.25
    assert figures.cosine == pytest.approx((6 + 29) / np.sqrt(30 * (1 + 6.25 + 34)), rel=1e-15)
    assert figures.snr_db == pytest.approx(10 * np.log10(30 / 1.25), rel=1e-14)
    assert figures.top1_agreement == 1.0


def test_every_output_and_every_batch_counts() -> None:
    reference = FunctionSession(lambda x: {"a": x, "b": 2 * x}, outputs=("a", "b"))
    candidate = FunctionSession(
        lambda x: {"b": 2 * x + np.float32(0.5 * (len(x) == 2)) * np.sign(x), "a": x}, outputs=("b", "a")
    )
    batches: list[BatchLike] = [images(3), Labelled(images(2), np.zeros(2, int)), images(1)]
    figures = compare_models(reference, candidate, iter(batches))
    assert list(figures) == ["a", "b"]
    assert figures["a"].max_abs == 0.0
    assert figures["b"].max_abs == pytest.approx(0.5, rel=1e-6)
    assert figures["a"].samples == 6
    assert reference.sizes == [3, 2, 1]


def session(*outputs: str) -> FunctionSession:
    return FunctionSession(lambda x: dict.fromkeys(outputs, x), outputs=outputs)


@pytest.mark.parametrize(
    ("reference", "candidate", "named"),
    [
        (("a", "b"), ("a",), ["no output 'b'", "a, b"]),
        (("a",), ("b", "a", "c"), ["no output 'b', 'c'", "b, a, c"]),
        (("a",), ("b",), ["no output 'a'", "no output 'b'"]),
        (("a",), (), ["no output 'a'", "(none)"]),
    ],
)
def test_outputs_that_one_of_the_two_lacks(
    reference: tuple[str, ...], candidate: tuple[str, ...], named: list[str]
) -> None:
    with raises("EF811", *named):
        compare_models(session(*reference), session(*candidate), [images(1)])
    with raises("EF811", *named):
        match_names(reference, candidate)


@pytest.mark.parametrize("dtype", ["S4", "U4", "O", "complex64"])
def test_outputs_that_cannot_be_compared_are_named(dtype: Any) -> None:
    odd = session("a", "names")
    odd.outputs["names"] = TensorInfo(np.dtype(dtype), ("batch", 2))
    for pair in ((odd, session("a", "names")), (session("a", "names"), odd)):
        with raises("EF807", "'names'", odd.outputs["names"], "floats, integers or booleans"):
            compare_models(*pair, [images(1)])
    assert odd.sizes == []


def test_types_that_can_be_compared() -> None:
    check_types(
        {str(kind): TensorInfo(np.dtype(kind), ("batch",)) for kind in ("f2", "f4", "f8", "i1", "u1", "i8", "?")}
    )


def test_an_output_that_a_run_lacks() -> None:
    with raises("EF811", "candidate", "'logits'", "other"):
        compare_models(FunctionSession(lambda x: x), FunctionSession(lambda x: {"other": x}), [images(1)])


def test_no_batch() -> None:
    with raises("EF813", "'logits'"):
        compare_models(FunctionSession(lambda x: x), FunctionSession(lambda x: x), [])


def test_several_inputs() -> None:
    session = FunctionSession(lambda x: x)
    session.inputs["more"] = session.inputs["input"]
    with raises("EF818", "2", "input, more"):
        compare_models(session, FunctionSession(lambda x: x), [images(1)])


def test_verifying_needs_no_torch_and_no_tensorrt() -> None:
    code = "import sys, edgeformer.verify, edgeformer.runtime, edgeformer.export; "
    code += "print([m for m in sys.modules if m in ('torch', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
