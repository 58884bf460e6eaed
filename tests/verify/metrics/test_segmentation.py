from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeformer.verify import Form, choose_metric, verify_forms
from edgeformer.verify.metrics.segmentation import MeanIoU
from tests.raising import raises
from tests.verify.conftest import FunctionSession, Labelled

Array = np.ndarray


def oracle(predicted: Array, labels: Array) -> tuple[float, float]:
    """Mean IoU and pixel accuracy in points, class by class, as anyone would write them."""
    counted = labels != 255
    ious = []
    for number in range(int(max(predicted.max(), labels[counted].max())) + 1):
        have, want = (predicted == number) & counted, (labels == number) & counted
        if (have | want).any():
            ious.append((have & want).sum() / (have | want).sum())
    return 100.0 * float(np.mean(ious)), 100.0 * float((predicted == labels)[counted].mean())


def scene(images: int, seed: int, classes: int = 7, size: tuple[int, int] = (9, 13)) -> tuple[Array, Array]:
    """Labels, some of them ignored, and predictions that are right for about two pixels in three."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (images, *size)).astype(np.uint8)
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, classes, labels.shape))
    labels[rng.random(labels.shape) < 0.1] = 255
    return predicted.astype(np.int32), labels


def logits_of(predicted: Array, classes: int, kind: Any = np.float32) -> Array:
    logits: Array = np.moveaxis(np.eye(classes)[predicted], -1, 1).astype(kind) * 3 - 1
    return logits


def measured(*batches: tuple[Array, Array]) -> MeanIoU:
    metric = MeanIoU(("map",))
    for output, labels in batches:
        metric.update({"map": output}, labels)
    return metric


def test_figures_worked_out_by_hand() -> None:
    # class 0: hit 1 of union 2; class 1: hit 2 of union 4; class 2: hit 0 of union 1; class 3 occurs nowhere
    labels = np.array([[[0, 0, 1], [1, 1, 255]]])
    predicted = np.array([[[0, 1, 1], [1, 2, 0]]])
    score = measured((logits_of(predicted, 4), labels)).result()
    assert score.value == pytest.approx(100 * (1 / 2 + 2 / 4 + 0) / 3, rel=1e-14)
    assert score.counts == {"pixel_accuracy": pytest.approx(60.0), "classes": 3, "pixels": 5}
    # shares of the labels .4, .6, 0 and of the predictions .2, .6, .2
    shares = ((0.08, 0.52), (0.36, 0.84), (0.0, 0.2))
    assert score.chance == pytest.approx(100 * np.mean([both / either for both, either in shares]), rel=1e-14)
    assert (score.metric, score.unit, score.samples) == ("mean IoU", "points", 1)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int32, np.uint8])
def test_it_is_the_slow_figure_of_the_whole_set(kind: Any) -> None:
    """Summed over all batches before it is divided, of logits and of class maps."""
    batches = [scene(3, seed) for seed in (1, 2)] + [scene(1, 3, classes=5)]
    given = [
        (logits_of(predicted, 9, kind) if np.dtype(kind).kind == "f" else predicted.astype(kind), labels)
        for predicted, labels in batches
    ]
    score = measured(*given).result()
    together = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
    value, pixel_accuracy = oracle(*together)
    assert score.value == pytest.approx(value, rel=1e-13)
    assert score.counts["pixel_accuracy"] == pytest.approx(pixel_accuracy, rel=1e-13)
    assert (score.samples, score.counts["classes"]) == (7, 7)
    assert score.value != pytest.approx(np.mean([oracle(*batch)[0] for batch in batches]), rel=1e-3)


def test_the_table_grows_with_the_classes_that_are_seen() -> None:
    first, second = scene(2, 4, classes=3), scene(2, 5, classes=11)
    score = measured(first, second).result()
    together = [np.concatenate(arrays) for arrays in zip(first, second, strict=True)]
    assert score.value == pytest.approx(oracle(*together)[0], rel=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pixel_that_is_not_finite_is_a_miss_and_no_class(bad: float) -> None:
    labels = np.array([[[0, 1]]])
    logits = logits_of(labels, 2)
    logits[0, 1, 0, 1] = bad
    score = measured((logits, labels)).result()
    assert score.value == 50.0
    assert score.counts["pixel_accuracy"] == 50.0


def test_a_perfect_map() -> None:
    _, labels = scene(8, 6)
    score = measured((logits_of(np.where(labels == 255, 0, labels), 7), labels)).result()
    assert (score.value, score.at_chance) == (100.0, False)
    assert score.counts["pixel_accuracy"] == pytest.approx(100.0)


@pytest.mark.parametrize("images", [1, 30])
def test_one_class_everywhere_is_chance(images: int) -> None:
    _, labels = scene(images, 7)
    score = measured((np.zeros(labels.shape, np.uint8), labels)).result()
    assert score.value == pytest.approx(score.chance, rel=1e-12)
    assert score.at_chance


def test_maps_of_other_images_are_chance() -> None:
    predicted, labels = scene(30, 8)
    assert measured((predicted, labels)).result().at_chance is False
    score = measured((np.roll(predicted, 1, axis=0), labels)).result()
    assert score.value == pytest.approx(score.chance, abs=1.0)
    assert score.at_chance


def test_few_images_prove_little() -> None:
    """mIoU 49 against a chance of 8: one image could be luck, thirty are none."""
    found = {images: measured(scene(images, 9)).result() for images in (1, 30)}
    assert [score.at_chance for score in found.values()] == [True, False]
    assert all(score.value > 40 and score.chance < 10 for score in found.values())


@pytest.mark.parametrize(
    ("output", "fits"),
    [
        (np.zeros((2, 5, 4, 3), np.float32), True),
        (np.zeros((2, 4, 3), np.int32), True),
        (np.zeros((2, 1, 4, 3), np.float32), False),
        (np.zeros((2, 5, 1, 3), np.float32), False),
        (np.zeros((2, 4, 3), np.float32), False),
        (np.zeros((2, 5, 4, 3), np.int32), False),
        (np.zeros((2, 4, 3), bool), False),
        (np.zeros((1, 4, 3), np.int32), False),
    ],
)
def test_what_fits_a_map_of_labels(output: Array, fits: bool) -> None:
    labels = np.zeros((2, 4, 3), np.uint8)
    assert MeanIoU.find({"other": np.zeros((2, 4)), "map": output}, labels) == (("map",) if fits else ())
    assert MeanIoU.find({"map": output}, labels[0]) == ()
    if fits:
        assert isinstance(choose_metric({"map": output}, labels), MeanIoU)
    else:
        with raises("EF821", output.dtype.name, list(output.shape), list(labels.shape)):
            measured((output, labels))


@pytest.mark.parametrize(
    ("output", "labels", "named"),
    [
        (np.zeros((1, 3, 1, 2), np.float32), [[[0, 3]]], ["0 to 3", "3 classes", "255"]),
        (np.zeros((1, 1, 2), int), [[[0, -1]]], ["-1 to 0", "from 0", "255"]),
        (np.array([[[0, -1]]]), [[[0, 1]]], ["'map'", "-1 to 1", "0 to 4095"]),
        (np.array([[[0, 4096]]]), [[[0, 1]]], ["'map'", "0 to 4096", "0 to 4095"]),
        (np.array([[[0, 1]]]), [[[0, 5000]]], ["'map'", "0 to 5000", "0 to 4095"]),
    ],
)
def test_classes_that_cannot_be(output: Array, labels: Any, named: list[str]) -> None:
    with raises("EF822", *named):
        measured((output, np.array(labels)))


def test_no_labelled_pixel() -> None:
    with raises("EF823", "mean IoU"):
        measured((np.zeros((1, 2, 2), int), np.full((1, 2, 2), 255))).result()
    with raises("EF823", "mean IoU"):
        measured().result()


def model(turned: int, dense: bool = True) -> FunctionSession:
    """Gives the class that is its input, but for ``turned`` pixels of each image."""

    def run(x: Array) -> dict[str, Array]:
        predicted = x.astype(np.int64).copy()
        predicted[:, 0, :turned] = (predicted[:, 0, :turned] + 1) % 7
        return {"score": x[:, 0, :1], "map": logits_of(predicted, 7) if dense else predicted}

    session = FunctionSession(run, outputs=("score", "map"))
    session.inputs["input"] = session.inputs["input"]._replace(shape=("batch", 9, 13))
    return session


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("turned", "status"), [(0, "passed"), (1, "missed")])
def test_a_segmentation_model_is_judged_by_its_mean_iou(dense: bool, turned: int, status: str) -> None:
    batches = []
    for seed in (1, 2, 3):
        predicted, labels = scene(9, seed)
        batches.append(Labelled(predicted.astype(np.float32), labels))
    forms = [
        Form.from_session("pytorch", model(0, dense)),
        Form.from_session("typed", model(turned, dense), "int8"),
    ]
    report = verify_forms(forms, batches, max_drop=0.5, memory_limit=1000)
    reference, typed = report.forms
    assert report.labelled
    assert reference.accuracy is not None
    assert typed.accuracy is not None
    assert typed.verdict is not None
    assert reference.accuracy.outputs == ("map",)
    whole = [np.concatenate(part) for part in zip(*(scene(9, seed) for seed in (1, 2, 3)), strict=True)]
    assert reference.accuracy.value == pytest.approx(oracle(*whole)[0], rel=1e-13)
    assert typed.status == status
    drop = reference.accuracy.value - typed.accuracy.value
    assert typed.verdict.metric == "accuracy_drop"
    assert typed.verdict.value == pytest.approx(drop)
    assert typed.text.startswith(f"accuracy drop in points {drop:.6g} of 'map' ")
    assert "of 'score' meets >= 0.99" in typed.text
    assert (drop > 0.5) == bool(turned)
    data = report.model_dump(mode="json")["forms"][1]["accuracy"]
    assert (data["metric"], data["outputs"], data["samples"]) == ("mean IoU", ["map"], 27)


def test_maps_that_know_nothing_are_judged_by_their_agreement() -> None:
    predicted, labels = scene(30, 1)
    batch = Labelled(np.roll(predicted, 1, axis=0).astype(np.float32), labels)
    forms = [Form.from_session("pytorch", model(0, False)), Form.from_session("typed", model(1, False), "int8")]
    typed = verify_forms(forms, [batch], max_drop=0.5).forms[1]
    assert typed.text.startswith("accuracy drop in points not judged: the reference's mean IoU of ")
    assert f"integer agreement {1 - 1 / 117:.6g} of 'map' MISSES >= 0.995" in typed.text
    assert typed.status == "missed"
