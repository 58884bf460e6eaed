"""The judge on a tiny routed network: figures that are known beforehand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.quantization import judge
from benchmarks.quantization.judge import Outputs, Reference, routing_agreement, run, snr_db
from tests.benchmarks.conftest import ROOT

from .graphs import FEATURES, model_of, routed, weights

IMAGES = weights(7, 4, FEATURES, seed=5)


def test_signal_to_noise() -> None:
    reference = np.array([[3.0, 4.0]])
    assert snr_db(reference, reference) == float("inf")
    assert snr_db(reference, 1.1 * reference) == pytest.approx(20)
    assert snr_db(reference, 0 * reference) == pytest.approx(0)


def test_sets_of_regions_are_compared_not_their_order() -> None:
    a = np.array([[[0, 1], [2, 3]], [[0, 2], [1, 3]]])
    b = a.copy()
    b[1, 0] = [0, 3]
    assert routing_agreement([a, a], [a, b]) == (100.0, 75.0)


def test_another_network_is_refused() -> None:
    a = np.zeros((2, 4, 2), np.int64)
    with pytest.raises(ValueError, match="regions picked"):
        routing_agreement([a], [a, a])
    with pytest.raises(ValueError, match="regions picked"):
        routing_agreement([a], [a[..., :1]])


def test_logits_and_regions_of_a_run() -> None:
    model = routed()
    found = run(model, IMAGES)
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    affinities = IMAGES @ constants["w_query"] @ IMAGES.transpose(0, 2, 1)
    expected = np.sort(np.argsort(-affinities, axis=-1)[..., :2], axis=-1)
    (regions,) = found.regions
    np.testing.assert_array_equal(regions, expected)
    assert found.logits.shape == (7, 5)
    assert found.logits.dtype == np.float64


def test_a_fixed_batch_that_does_not_divide() -> None:
    flexible = model_of([onnx.helper.make_node("ReduceSum", ["input", "axes"], ["logits"], keepdims=0)], AXES)
    fixed = model_of(
        [onnx.helper.make_node("ReduceSum", ["input", "axes"], ["logits"], keepdims=0)], AXES, shape=(3, 4, FEATURES)
    )
    np.testing.assert_array_equal(run(fixed, IMAGES).logits, run(flexible, IMAGES).logits)


AXES = {"axes": np.array([1], np.int64)}


def test_figures_of_a_column() -> None:
    logits = np.eye(4)
    other = logits.copy()
    other[3] = logits[2]
    regions = (np.zeros((4, 2, 1), np.int64),)
    reference = Reference(np.zeros((4, 1)), np.array([0, 1, 2, 2]), Outputs(logits, regions))
    found = judge.compare(reference, Outputs(other, regions))
    assert (found.top1, found.agreement) == (100.0, 75.0)
    assert found.snr_db == pytest.approx(10 * np.log10(4 / 2))
    assert (found.routing, found.routing_mean) == ((100.0,), 100.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = routed()
    onnx.save(model, tmp_path / "exported.onnx")
    for column in judge.COLUMNS:
        Reference(IMAGES, np.zeros(7, np.int64), run(model, IMAGES)).save(tmp_path / f"{column}.npz")
    return tmp_path


def test_all_figures_of_a_file(folder: Path) -> None:
    found = judge.judge(routed(noise=0.01), folder)
    assert 20 < found["clean"]["snr_db"] < 60
    assert found["clean"] == found["degraded"]
    assert found["clean"]["routing"] == (100.0,)
    assert (found["int8"], found["weights_8_bit"]) == (0.0, 0.0)


def test_a_file_in_which_products_are_missing_is_refused(folder: Path) -> None:
    model = routed()
    product = next(node for node in model.graph.node if node.name == "classes")
    product.CopyFrom(onnx.helper.make_node("Gather", ["input", "first"], ["classes"], axis=2))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(5), "first"))
    with pytest.raises(ValueError, match="multiply-adds were found of"):
        judge.judge(model, folder)


@pytest.mark.parametrize("module", ["judge", "child", "degradations"])
def test_it_knows_nothing_of_edgeformer(module: str) -> None:
    found = "[name for name in sys.modules if name.split('.')[0] == 'edgeformer']"
    script = f"import sys, benchmarks.quantization.{module}; print(*{found})"
    printed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""
