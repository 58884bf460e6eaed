from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgeformer.errors import InputError
from edgeformer.runtime import OnnxSession
from edgeformer.verify import compare_models
from tests.verify.conftest import FunctionSession, Labelled, images, linear_model


def test_two_graphs_that_differ_by_a_known_amount():
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


def test_every_output_and_every_batch_counts():
    reference = FunctionSession(lambda x: {"a": x, "b": 2 * x}, outputs=("a", "b"))
    candidate = FunctionSession(
        lambda x: {"b": 2 * x + np.float32(0.5 * (len(x) == 2)) * np.sign(x), "c": x, "a": x}, outputs=("b", "c", "a")
    )
    figures = compare_models(reference, candidate, iter([images(3), Labelled(images(2), np.zeros(2, int)), images(1)]))
    assert list(figures) == ["a", "b"]
    assert figures["a"].max_abs == 0.0
    assert figures["b"].max_abs == pytest.approx(0.5, rel=1e-6)
    assert figures["a"].samples == 6
    assert reference.sizes == [3, 2, 1]


def test_an_output_that_is_missing():
    with pytest.raises(InputError, match="the candidate has no output 'logits'; it has other"):
        compare_models(FunctionSession(lambda x: x), FunctionSession(lambda x: {"other": x}), [images(1)])


def test_no_batch():
    with pytest.raises(InputError, match="there is no sample"):
        compare_models(FunctionSession(lambda x: x), FunctionSession(lambda x: x), [])


def test_several_inputs():
    session = FunctionSession(lambda x: x)
    session.inputs["more"] = session.inputs["input"]
    with pytest.raises(InputError, match="a model with one input, this one has 2: input, more"):
        compare_models(session, FunctionSession(lambda x: x), [images(1)])


def test_verifying_needs_no_torch_and_no_tensorrt():
    code = "import sys, edgeformer.verify, edgeformer.runtime, edgeformer.export; "
    code += "print([m for m in sys.modules if m in ('torch', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
