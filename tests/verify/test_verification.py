from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.errors import GateMissed
from edgeformer.runtime import OnnxSession
from edgeformer.verify import Form, FormReport, RoutingOutput, require, verify_forms
from tests.present import present
from tests.raising import raises
from tests.verify.conftest import Function, FunctionSession, Labelled, images, linear_model, routing_model

WEIGHT = np.random.default_rng(20).standard_normal((3, 4))


def classifier(weight: np.ndarray = WEIGHT, **options: Any) -> FunctionSession:
    return FunctionSession(lambda x: x @ weight.astype(np.float32), **options)


def scaled(factor: float) -> onnx.ModelProto:
    return linear_model(WEIGHT * factor)


def chain(*tail: Form) -> list[Form]:
    return [
        Form.from_session("pytorch", classifier()),
        Form.from_onnx("exported", linear_model(WEIGHT), "export"),
        *tail,
    ]


def judged(form: FormReport) -> tuple[str, str, float | None]:
    verdict = present(form.verdict)
    return form.status, verdict.metric, verdict.value


def test_forms_that_meet_their_gates() -> None:
    fused = Form.from_onnx("fused", scaled(1 + 5e-6), "fuse")
    typed = Form.from_onnx("typed", scaled(1.01), "fp16")
    report = verify_forms(chain(fused, typed), [images(5), images(4, seed=1)])
    assert [(s.name, s.status, s.against) for s in report.forms] == [
        ("pytorch", "reference", None),
        ("exported", "passed", "pytorch"),
        ("fused", "passed", "exported"),
        ("typed", "passed", "pytorch"),
    ]
    assert (report.passed, report.samples, report.labelled, report.not_run) == (True, 9, False, ())
    require(report)
    typed_report = report.forms[3]
    assert present(typed_report.previous)["logits"].max_abs_relative == pytest.approx(0.01, rel=1e-2)
    assert present(typed_report.first)["logits"].snr_db == pytest.approx(40.0, abs=0.01)
    assert present(typed_report.previous)["logits"].samples == 9
    assert all(present(form.seconds) > 0 for form in report.forms)


def test_each_form_is_compared_with_the_one_before_and_with_the_first() -> None:
    report = verify_forms(chain(Form.from_onnx("a", scaled(1.01)), Form.from_onnx("b", scaled(1.03))), [images(6)])
    last = report.forms[3]
    assert last.status == "not judged"
    assert present(last.first)["logits"].max_abs_relative == pytest.approx(0.03, rel=1e-4)
    assert present(last.previous)["logits"].max_abs_relative == pytest.approx(0.02 / 1.01, rel=1e-4)


def test_a_missed_gate_names_form_figure_and_limit() -> None:
    report = verify_forms(chain(Form.from_onnx("fused", scaled(1.001), "fuse")), [images(5)])
    assert [form.status for form in report.forms] == ["reference", "passed", "missed"]
    assert not report.passed
    with pytest.raises(GateMissed) as caught:
        require(report)
    verdict = present(report.forms[2].verdict)
    assert verdict.value == pytest.approx(1e-3, rel=1e-3)
    assert str(caught.value) == (
        f"form 'fused' against 'exported': max |diff| / max |ref| {verdict.value:.6g} MISSES <= 1e-05"
    )


def test_every_missed_gate_is_named() -> None:
    tail = [Form.from_onnx("fused", scaled(1.1), "fuse"), Form.from_onnx("typed", linear_model(-WEIGHT), "fp16")]
    with raises("EF801", "'fused'", "'typed'", "'pytorch'", "cosine -1"):
        require(verify_forms(chain(*tail), [images(5)]))


def test_nan_in_one_batch_misses_the_gate() -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        y = x @ WEIGHT.astype(np.float32)
        return np.where(len(x) == 2, np.nan, y).astype(np.float32)

    typed = Form.from_session("typed", FunctionSession(broken), "fp16")
    report = verify_forms(chain(typed), [images(5), images(2, seed=1), images(5, seed=2)])
    assert report.forms[2].status == "missed"
    assert math.isnan(present(report.forms[2].verdict).value)
    assert present(report.forms[2].first)["logits"].nonfinite == 8


def labelled(count: int, wrong: int = 0) -> Labelled:
    x = images(count, seed=30)
    labels = (x @ WEIGHT.astype(np.float32)).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 4
    return Labelled(x, labels)


def wrong_for_the_first(count: int) -> FunctionSession:
    """A classifier that gives another class than the reference for the first samples of its batch."""

    def function(x: np.ndarray) -> np.ndarray:
        y = x @ WEIGHT.astype(np.float32)
        y[:count] = np.roll(y[:count], 2, axis=1)
        return y

    return FunctionSession(function)


@pytest.mark.parametrize(
    ("changed", "max_drop", "status"), [(1, 1.0, "passed"), (2, 1.0, "missed"), (2, 2.0, "passed")]
)
def test_int8_with_labels_is_judged_by_the_accuracy_drop(changed: int, max_drop: float, status: str) -> None:
    batch = labelled(100)
    report = verify_forms(
        chain(Form.from_session("typed", wrong_for_the_first(changed), "int8")), [batch], max_drop=max_drop
    )
    form = report.forms[2]
    assert report.labelled
    assert judged(form) == (status, "accuracy_drop", float(changed))
    assert present(form.accuracy).counts["correct"] == 100 - changed
    assert present(report.forms[0].accuracy).value == 100.0


def test_int8_without_labels_is_judged_by_agreement() -> None:
    batch = labelled(100)
    report = verify_forms(chain(Form.from_session("typed", wrong_for_the_first(2), "int8")), [batch.images])
    form = report.forms[2]
    assert judged(form) == ("missed", "top1_agreement", 0.98)
    assert form.accuracy is None


def test_labels_in_some_batches_only_are_not_used() -> None:
    report = verify_forms(chain(), [labelled(4), images(4)])
    assert not report.labelled
    assert report.forms[0].accuracy is None


def test_dense_outputs_the_worst_decides() -> None:
    def dense(noise: float) -> Function:
        return lambda x: {"stage0": x[:, :, None], "stage1": x[:, ::-1, None] * np.float32(1 + noise)}

    first = FunctionSession(dense(0.0), outputs=("stage0", "stage1"), rank=3)
    second = FunctionSession(dense(1e-3), outputs=("stage0", "stage1"), rank=3)
    report = verify_forms(
        [Form.from_session("pytorch", first), Form.from_session("exported", second, "export")], [images(5)]
    )
    form = report.forms[1]
    assert present(form.first)["stage0"].max_abs == 0.0
    assert form.status == "missed"
    assert present(form.verdict).value == present(form.first)["stage1"].max_abs_relative
    assert present(form.verdict).output == "stage1"
    assert form.text == f"max |diff| / max |ref| {present(form.verdict).value:.6g} of 'stage1' MISSES <= 0.0001"
    assert form.accuracy is None


def routed_chain(**changes: Any) -> list[Form]:
    reference = OnnxSession(routing_model())
    return [
        Form.from_session("pytorch", reference),
        Form.from_onnx("exported", routing_model(), "export"),
        Form.from_onnx("fused", routing_model(**changes), "fuse"),
        Form.from_onnx("typed", routing_model(), "fp16"),
    ]


def routed_images(count: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((count, 4, 6, 12)).astype(np.float32)


def test_routing_agreement_is_reported_against_the_first_and_the_one_before() -> None:
    report = verify_forms(routed_chain(shift=0.75), [routed_images(4)])
    pytorch, exported, fused, typed = report.forms
    assert pytorch.routing_first is exported.routing_first is None, "nothing before it shows its routing"
    assert fused.routing_first == fused.routing_previous
    assert 0.0 < present(fused.routing_first).blocks[0].agreement < 1.0
    assert present(typed.routing_first).agreement == 1.0
    assert present(typed.routing_previous).agreement < 1.0
    assert list(present(fused.first)) == ["logits"], "routing indices are no figures"


ROUTING = (RoutingOutput("routing", None, 0),)


def _routes(flipped: int, moved: int) -> FunctionSession:
    """40 rows of routing a sample; the first ``flipped`` samples pick another region, sample ``moved`` differs."""

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.tile(np.array([0, 1]), (len(values), 40, 1))
        rows[:flipped, 7] = [0, 2]
        logits = values.copy()
        logits[moved] += 1e-2
        return {"logits": logits, "routing": rows}

    return FunctionSession(run, outputs=("logits", "routing"))


@pytest.mark.parametrize(
    ("flipped", "moved", "status", "text"),
    [
        (1, 0, "passed", "judged on the 99 of 100 samples that both route alike"),
        (0, 0, "missed", "max |diff| / max |ref| "),
        (1, 1, "missed", "max |diff| / max |ref| "),
        (5, 0, "missed", "routing agreement 0.99875 MISSES >= 0.999"),
    ],
)
def test_a_near_tie_that_fusing_turns_around_is_no_fault(flipped: int, moved: int, status: str, text: str) -> None:
    """A sample that is routed otherwise may differ by more than rounding; one that is routed alike may not."""
    exported = FunctionSession(
        lambda values: {"logits": values, "routing": np.tile(np.array([1, 0]), (len(values), 40, 1))},
        outputs=("logits", "routing"),
    )
    forms = [
        Form.from_session("exported", exported, routing=ROUTING),
        Form.from_session("fused", _routes(flipped, moved), "fuse", routing=ROUTING),
    ]
    fused = verify_forms(forms, [images(100)]).forms[1]
    assert fused.status == status
    assert text in fused.text
    assert present(fused.first)["logits"].max_abs == pytest.approx(1e-2, rel=1e-3), (
        "the figures are those of all samples"
    )


def test_the_report_is_json() -> None:
    tail = [
        Form.from_onnx("fused", linear_model(WEIGHT), "fuse"),
        Form.not_run("engine", "engine not run: no GPU", "fp16"),
    ]
    report = verify_forms(chain(*tail), [labelled(6)])
    assert report.passed is True
    data = json.loads(report.model_dump_json())
    assert [form["status"] for form in data["forms"]] == ["reference", "passed", "passed", "not run"]
    assert data["forms"][2]["previous"]["logits"]["snr_db"] == "inf"
    assert data["forms"][1]["verdict"]["limit"] == 1e-4
    assert data["forms"][0]["accuracy"] == {
        "metric": "top-1 accuracy",
        "value": 100.0,
        "unit": "points",
        "outputs": ["logits"],
        "samples": 6,
        "chance": 25.0,
        "at_chance": False,
        "counts": {"correct": 6, "total": 6, "top1": 1.0},
    }
    routed = json.loads(verify_forms(routed_chain(), [routed_images(2)]).model_dump_json())
    assert routed["forms"][2]["routing_first"]["stages"] == {"0": 1.0, "2": 1.0}


@pytest.mark.parametrize(
    "given",
    [
        [],
        [Form.from_session("a", classifier()), Form.from_session("a", classifier())],
        [Form.not_run("engine", "no GPU")],
    ],
)
def test_forms_that_make_no_chain(given: list[Form]) -> None:
    with raises("EF815", [form.name for form in given]):
        verify_forms(given, [images(1)])


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3), np.float32)]])
def test_no_sample(batches: list[np.ndarray]) -> None:
    with raises("EF813"):
        verify_forms(chain(), batches)


@pytest.mark.parametrize("x", [images(2, width=4), images(2).astype(np.float64), images(2)[:, :, None]])
def test_images_that_do_not_fit(x: np.ndarray) -> None:
    with raises("EF802", "'input'", "float32 [batch, 3]", f"{x.dtype.name} {list(x.shape)}"):
        verify_forms(chain(), [x])


def test_outputs_that_do_not_fit_each_other() -> None:
    narrow = Form.from_onnx("fused", linear_model(WEIGHT[:, :2]), "fuse")
    with raises("EF812", "form 'fused'", "'logits'", [2, 4], [2, 2]):
        verify_forms(chain(narrow), [images(2)])


def test_labels_of_another_task() -> None:
    with raises("EF822", "0 to 9", "4 classes"):
        verify_forms(chain(), [Labelled(images(2), np.array([0, 9]))])


def with_classes(weight: np.ndarray) -> onnx.ModelProto:
    """A classifier that also gives its two best classes."""
    model = linear_model(weight)
    model.graph.node.append(onnx.helper.make_node("TopK", ["logits", "two"], ["scores", "classes"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "two"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("classes", onnx.TensorProto.INT64, ["batch", 2]))
    return model


def test_the_best_classes_are_an_output_and_no_routing() -> None:
    forms = [
        Form.from_onnx("exported", with_classes(WEIGHT)),
        Form.from_onnx("fused", with_classes(WEIGHT), "fuse"),
        Form.from_onnx("typed", with_classes(WEIGHT[:, ::-1].copy()), "fp16"),
    ]
    report = verify_forms(forms, [images(40), images(10, seed=1)])
    _, fused, typed = report.forms
    assert (fused.status, fused.routing_first) == ("passed", None)
    assert "integer agreement 1 of 'classes' meets >= 0.999" in fused.text
    assert present(fused.first)["classes"].integer_agreement == 1.0
    want = np.concatenate([np.argsort(-(x @ WEIGHT))[:, :2] for x in (images(40), images(10, seed=1))])
    have = np.concatenate([np.argsort(-(x @ WEIGHT[:, ::-1]))[:, :2] for x in (images(40), images(10, seed=1))])
    assert present(typed.first)["classes"].integer_agreement == (want == have).mean()
    assert typed.status == "missed"
    assert f"integer agreement {(want == have).mean():g} of 'classes' MISSES >= 0.995" in typed.text
    assert json.loads(typed.model_dump_json())["first"]["classes"] == {
        **dict.fromkeys(["max_abs", "max_abs_relative", "cosine", "cosine_min", "snr_db", "top1_agreement"]),
        "samples": 50,
        "nonfinite": 0,
        "integer_agreement": (want == have).mean(),
    }


def two_outputs(
    logits_of: Callable[[np.ndarray], np.ndarray],
    features_of: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    **kinds: Any,
) -> FunctionSession:
    return FunctionSession(
        lambda x: {"features": features_of(x), "logits": logits_of(x)}, outputs=("features", "logits"), **kinds
    )


def right(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHT.astype(np.float32)


def test_the_task_metric_judges_its_output_and_the_others_are_judged_without() -> None:
    features = "features", "logits"

    def dense(factor: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: np.stack([x, x * factor], 2).astype(np.float32)

    forms = [
        Form.from_session("pytorch", two_outputs(right, dense(1.0))),
        Form.from_session("typed", two_outputs(right, dense(-1.0)), "int8"),
    ]
    report = verify_forms(forms, [labelled(50)])
    typed = report.forms[1]
    assert list(present(typed.first)) == list(features)
    assert present(report.forms[0].accuracy).outputs == ("logits",)
    assert (typed.status, present(typed.verdict).metric, present(typed.verdict).output) == (
        "missed",
        "cosine",
        "features",
    )
    assert typed.text.startswith("accuracy drop in points 0 of 'logits' meets <= 1; cosine ")
    assert typed.text.endswith("of 'features' MISSES >= 0.99")


def test_a_reference_at_chance_has_nothing_to_lose() -> None:
    """Labels that have nothing to do with the images: any rounding passes on them, so agreement decides."""
    x = images(100, seed=30)
    batch = Labelled(x, np.random.default_rng(6).integers(0, 4, 100))
    correct = int(((x @ WEIGHT).argmax(1) == batch.labels).sum())
    forms = chain(Form.from_session("typed", wrong_for_the_first(2), "int8"))
    report = verify_forms(forms, [batch])
    reference, _, typed = report.forms
    assert (present(reference.accuracy).at_chance, present(reference.accuracy).value) == (True, float(correct))
    assert judged(typed) == ("missed", "top1_agreement", 0.98)
    assert typed.text == (
        f"accuracy drop in points not judged: the reference's top-1 accuracy of {correct}.00 points on 100 samples is "
        "no better than chance (25.00 points), so that it has nothing to lose; top-1 agreement 0.98 MISSES >= 0.99"
    )
    passing = verify_forms(chain(Form.from_session("typed", wrong_for_the_first(1), "int8")), [batch]).forms[2]
    assert passing.status == "passed"
    assert "accuracy drop in points not judged" in passing.text
    assert present(report.forms[0].accuracy).at_chance is True


def test_a_gate_without_a_task_metric_says_nothing_of_chance() -> None:
    batch = Labelled(images(20), np.random.default_rng(6).integers(0, 4, 20))
    assert "chance" not in verify_forms(chain(), [batch]).forms[1].text


def test_labels_that_fit_no_output() -> None:
    def dense() -> FunctionSession:
        return FunctionSession(lambda x: {"stage0": x[:, :, None]}, outputs=("stage0",), rank=3)

    with raises("EF821", "form 'pytorch'", "int64 [5]", "stage0 float32"):
        verify_forms([Form.from_session("pytorch", dense()), Form.from_session("b", dense())], [labelled(5)])


def test_integers_are_judged_on_samples_that_are_routed_alike() -> None:
    def form(changed: int, flipped: int) -> Form:
        def run(x: np.ndarray) -> dict[str, np.ndarray]:
            routing = np.zeros((len(x), 4000, 1), int)
            routing[:flipped, 0] = 1
            classes = np.zeros((len(x), 10), int)
            classes[:changed] = 1
            return {"classes": classes, "routing": routing}

        session = FunctionSession(run, outputs=("classes", "routing"))
        return Form.from_session(f"form{changed}", session, "fuse" if changed else None, routing=ROUTING)

    alike = verify_forms([form(0, 0), form(2, 2)], [images(100)]).forms[1]
    assert (alike.status, present(alike.verdict).value) == ("passed", 1.0)
    assert alike.text.endswith(", judged on the 98 of 100 samples that both route alike")
    assert present(alike.first)["classes"].integer_agreement == 0.98
    changed = verify_forms([form(0, 0), form(3, 2)], [images(100)]).forms[1]
    assert (changed.status, present(changed.verdict).metric) == ("missed", "integer_agreement")
    assert present(changed.verdict).value == pytest.approx(97 / 98)


@pytest.mark.parametrize("names", [("logits",), ("features", "logits", "more")])
def test_outputs_that_one_form_lacks_are_named(names: list[str]) -> None:
    other = FunctionSession(lambda x: {name: right(x) for name in names}, outputs=names)
    forms = [Form.from_session("pytorch", two_outputs(right)), Form.from_session("exported", other, "export")]
    with raises("EF811", "form 'exported'", "no output 'features'" if len(names) == 1 else "no output 'more'"):
        verify_forms(forms, [images(2)])


def test_the_report_is_the_same_whether_outputs_are_kept_in_memory_or_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def report(limit: int) -> list[FormReport]:
        found = verify_forms(routed_chain(shift=0.75), [routed_images(3), routed_images(2)], memory_limit=limit)
        return [form.model_copy(update={"seconds": None}) for form in found.forms]

    assert report(0) == report(1 << 20)
    assert list(tmp_path.iterdir()) == []
