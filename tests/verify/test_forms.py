from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from polygraphy.comparator import Comparator

from edgeformer.errors import GateMissed, InputError
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.runtime import OnnxSession
from edgeformer.verify import Form, forms, require, verify_forms
from edgeformer.verify.routing import RoutingOutput
from edgeformer.verify.runner import SessionRunner
from tests.verify.conftest import FunctionSession, Labelled, images, linear_model, routing_model

WEIGHT = np.random.default_rng(20).standard_normal((3, 4))


def classifier(weight=WEIGHT, **options):
    return FunctionSession(lambda x: x @ weight.astype(np.float32), **options)


def scaled(factor: float):
    return linear_model(WEIGHT * factor)


def chain(*tail: Form) -> list[Form]:
    return [
        Form.from_session("pytorch", classifier()),
        Form.from_onnx("exported", linear_model(WEIGHT), "export"),
        *tail,
    ]


def test_forms_that_meet_their_gates():
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
    assert typed_report.previous["logits"].max_abs_relative == pytest.approx(0.01, rel=1e-2)
    assert typed_report.first["logits"].snr_db == pytest.approx(40.0, abs=0.01)
    assert typed_report.previous["logits"].samples == 9
    assert all(form.seconds > 0 for form in report.forms)


def test_each_form_is_compared_with_the_one_before_and_with_the_first():
    report = verify_forms(chain(Form.from_onnx("a", scaled(1.01)), Form.from_onnx("b", scaled(1.03))), [images(6)])
    last = report.forms[3]
    assert last.status == "not judged"
    assert last.first["logits"].max_abs_relative == pytest.approx(0.03, rel=1e-4)
    assert last.previous["logits"].max_abs_relative == pytest.approx(0.02 / 1.01, rel=1e-4)


def test_a_missed_gate_names_form_figure_and_limit():
    report = verify_forms(chain(Form.from_onnx("fused", scaled(1.001), "fuse")), [images(5)])
    assert [form.status for form in report.forms] == ["reference", "passed", "missed"]
    assert not report.passed
    with pytest.raises(GateMissed) as caught:
        require(report)
    verdict = report.forms[2].verdict
    assert verdict.value == pytest.approx(1e-3, rel=1e-3)
    assert str(caught.value) == (
        f"form 'fused' against 'exported': max |diff| / max |ref| {verdict.value:.6g} MISSES <= 1e-05"
    )


def test_every_missed_gate_is_named():
    tail = [Form.from_onnx("fused", scaled(1.1), "fuse"), Form.from_onnx("typed", linear_model(-WEIGHT), "fp16")]
    with pytest.raises(GateMissed, match=r"form 'fused'.*form 'typed' against 'pytorch': cosine -1 MISSES"):
        require(verify_forms(chain(*tail), [images(5)]))


def test_nan_in_one_batch_misses_the_gate():
    def broken(x):
        y = x @ WEIGHT.astype(np.float32)
        return np.where(len(x) == 2, np.nan, y).astype(np.float32)

    typed = Form.from_session("typed", FunctionSession(broken), "fp16")
    report = verify_forms(chain(typed), [images(5), images(2, seed=1), images(5, seed=2)])
    assert report.forms[2].status == "missed"
    assert math.isnan(report.forms[2].verdict.value)
    assert report.forms[2].first["logits"].nonfinite == 8


def labelled(count: int, wrong: int = 0) -> Labelled:
    x = images(count, seed=30)
    labels = (x @ WEIGHT.astype(np.float32)).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 4
    return Labelled(x, labels)


def wrong_for_the_first(count: int):
    """A classifier that gives another class than the reference for the first samples of its batch."""

    def function(x):
        y = x @ WEIGHT.astype(np.float32)
        y[:count] = np.roll(y[:count], 2, axis=1)
        return y

    return FunctionSession(function)


@pytest.mark.parametrize(
    ("changed", "max_drop", "status"), [(1, 1.0, "passed"), (2, 1.0, "missed"), (2, 2.0, "passed")]
)
def test_int8_with_labels_is_judged_by_the_accuracy_drop(changed, max_drop, status):
    batch = labelled(100)
    report = verify_forms(
        chain(Form.from_session("typed", wrong_for_the_first(changed), "int8")), [batch], max_drop=max_drop
    )
    form = report.forms[2]
    assert report.labelled
    assert (form.status, form.verdict.metric, form.verdict.value) == (status, "accuracy_drop", float(changed))
    assert form.accuracy.correct == 100 - changed
    assert report.forms[0].accuracy.correct == 100


def test_int8_without_labels_is_judged_by_agreement():
    batch = labelled(100)
    report = verify_forms(chain(Form.from_session("typed", wrong_for_the_first(2), "int8")), [batch.images])
    form = report.forms[2]
    assert (form.status, form.verdict.metric, form.verdict.value) == ("missed", "top1_agreement", 0.98)
    assert form.accuracy is None


def test_labels_in_some_batches_only_are_not_used():
    report = verify_forms(chain(), [labelled(4), images(4)])
    assert not report.labelled
    assert report.forms[0].accuracy is None


def test_dense_outputs_the_worst_decides():
    def dense(noise: float):
        return lambda x: {"stage0": x[:, :, None], "stage1": x[:, ::-1, None] * np.float32(1 + noise)}

    first = FunctionSession(dense(0.0), outputs=("stage0", "stage1"), rank=3)
    second = FunctionSession(dense(1e-3), outputs=("stage0", "stage1"), rank=3)
    report = verify_forms(
        [Form.from_session("pytorch", first), Form.from_session("exported", second, "export")], [labelled(5)]
    )
    form = report.forms[1]
    assert form.first["stage0"].max_abs == 0.0
    assert form.status == "missed"
    assert form.verdict.value == form.first["stage1"].max_abs_relative
    assert form.accuracy is None


@pytest.mark.parametrize("fixed", [4, 3])
def test_a_fixed_batch_is_filled_up_and_the_copies_are_dropped(fixed):
    pytorch = classifier()
    report = verify_forms(
        [
            Form.from_session("pytorch", pytorch),
            Form.from_onnx("exported", linear_model(WEIGHT, batch=fixed), "export"),
        ],
        [labelled(7), labelled(4)],
    )
    assert pytorch.sizes == {4: [4, 4, 4], 3: [3, 3, 3, 3, 3]}[fixed]
    assert report.samples == 11
    assert report.forms[1].first["logits"].samples == 11
    assert report.forms[1].accuracy.total == 11


def test_onnx_files(tmp_path):
    onnx.save_model(linear_model(WEIGHT), tmp_path / "exported.onnx")
    form = Form.from_onnx("exported", tmp_path / "exported.onnx", "export", threads=1)
    report = verify_forms([Form.from_session("pytorch", classifier()), form], [images(3)])
    assert report.forms[1].status == "passed"
    with pytest.raises(InputError, match=r"gone\.onnx"):
        Form.from_onnx("exported", tmp_path / "gone.onnx")


def test_forms_that_fix_different_batches():
    tail = Form.from_onnx("fused", linear_model(WEIGHT, batch=2))
    first = Form.from_onnx("exported", linear_model(WEIGHT, batch=3))
    with pytest.raises(InputError, match=r"different batch sizes \(exported: 3, fused: 2\)"):
        verify_forms([first, tail], [images(6)])


def test_an_engine_without_gpu_is_not_run_and_not_passed(monkeypatch, tmp_path):
    monkeypatch.setattr(forms, "find_gpus", lambda: GpuSurvey((), None, None, "no NVIDIA driver (test)"))
    engine = Form.from_engine("engine", tmp_path / "model.engine", "int8")
    report = verify_forms(chain(engine), [images(5)])
    form = report.forms[2]
    assert (form.name, form.status, form.text) == ("engine", "not run", "engine not run: no GPU")
    assert form.verdict is None
    assert report.not_run == ("engine",)
    assert report.to_dict()["not_run"] == ["engine"]
    require(report)


def test_an_engine_for_another_gpu_is_not_run(monkeypatch, tmp_path):
    survey = GpuSurvey((Gpu(0, "GPU", 86, 1 << 33),), "580.65", "13.0", "")
    monkeypatch.setattr(forms, "find_gpus", lambda: survey)
    monkeypatch.setattr(forms, "can_run_engine", lambda *_, **__: True)
    monkeypatch.setattr(forms, "EngineSession", lambda *_, **__: classifier())
    engine = Form.from_engine("engine", tmp_path / "model.engine", "int8", sm=89)
    assert engine.session is None
    assert engine.reason == "engine not run: it is for SM 89, and this machine's GPU is a GPU (SM 86)"
    for sm in (86, None):
        assert Form.from_engine("engine", tmp_path / "model.engine", "int8", sm=sm).session is not None


def test_a_stage_closes_its_session():
    session = classifier()
    with Form.from_session("pytorch", session) as stage:
        verify_forms([stage], [images(2)])
        assert not session.closed
    assert session.closed
    with pytest.raises(InputError, match="the function cannot run: its session was closed"):
        verify_forms([stage], [images(2)])
    with Form("engine", None, "int8", reason="no GPU") as nothing:
        assert nothing.session is None


def test_an_engine_without_tensorrt_is_not_run(monkeypatch, tmp_path):
    survey = GpuSurvey((Gpu(0, "GPU", 86, 1 << 33),), "580.65", "13.0", "")
    monkeypatch.setattr(forms, "find_gpus", lambda: survey)
    monkeypatch.setattr("edgeformer.runtime.gpu.find_gpus", lambda: survey)
    monkeypatch.setattr("edgeformer.runtime.gpu.installed_flavours", lambda: ())
    engine = Form.from_engine("engine", tmp_path / "model.engine", "int8", flavour="tensorrt_rtx")
    assert engine.session is None
    assert (
        engine.reason == "engine not run: the Python module 'tensorrt_rtx' is not installed: pip install tensorrt-rtx"
    )


def routed_chain(**changes):
    reference = OnnxSession(routing_model())
    return [
        Form.from_session("pytorch", reference),
        Form.from_onnx("exported", routing_model(), "export"),
        Form.from_onnx("fused", routing_model(**changes), "fuse"),
        Form.from_onnx("typed", routing_model(), "fp16"),
    ]


def routed_images(count: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((count, 4, 6, 12)).astype(np.float32)


def test_routing_agreement_is_reported_against_the_first_and_the_one_before():
    report = verify_forms(routed_chain(shift=0.75), [routed_images(4)])
    pytorch, exported, fused, typed = report.forms
    assert pytorch.routing_first is exported.routing_first is None, "nothing before it shows its routing"
    assert fused.routing_first == fused.routing_previous
    assert 0.0 < fused.routing_first.blocks[0].agreement < 1.0
    assert typed.routing_first.agreement == 1.0
    assert typed.routing_previous.agreement < 1.0
    assert list(fused.first) == ["logits"], "routing indices are no figures"


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
def test_a_near_tie_that_fusing_turns_around_is_no_fault(flipped, moved, status, text):
    """A sample that is routed otherwise may differ by more than rounding; one that is routed alike may not."""
    routing = (RoutingOutput("routing", None, 0),)
    exported = FunctionSession(
        lambda values: {"logits": values, "routing": np.tile(np.array([1, 0]), (len(values), 40, 1))},
        outputs=("logits", "routing"),
    )
    forms = [
        Form("exported", exported, routing=routing),
        Form("fused", _routes(flipped, moved), "fuse", routing=routing),
    ]
    fused = verify_forms(forms, [images(100)]).forms[1]
    assert fused.status == status
    assert text in fused.text
    assert fused.first["logits"].max_abs == pytest.approx(1e-2, rel=1e-3), "the figures are those of all samples"


def test_the_report_is_json():
    tail = [
        Form.from_onnx("fused", linear_model(WEIGHT), "fuse"),
        Form("engine", None, "fp16", reason="engine not run: no GPU"),
    ]
    report = verify_forms(chain(*tail), [labelled(6)])
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["passed"] is True
    assert [form["status"] for form in data["forms"]] == ["reference", "passed", "passed", "not run"]
    assert data["forms"][2]["previous"]["logits"]["snr_db"] == "inf"
    assert data["forms"][1]["verdict"]["limit"] == 1e-4
    assert data["forms"][0]["accuracy"] == {"correct": 6, "total": 6, "top1": 1.0}
    routed = json.loads(json.dumps(verify_forms(routed_chain(), [routed_images(2)]).to_dict(), allow_nan=False))
    assert routed["forms"][2]["routing_first"]["stages"] == {"0": 1.0, "2": 1.0}


def test_polygraphy_runs_and_compares(monkeypatch, capfd):
    ran, compared = [], []
    run, compare = Comparator.run, Comparator.compare_accuracy

    def spy_run(runners, **options):
        ran.append([(type(runner), runner.name) for runner in runners])
        return run(runners, **options)

    def spy_compare(results, **options):
        compared.append([name for name, _ in results])
        return compare(results, **options)

    monkeypatch.setattr(Comparator, "run", staticmethod(spy_run))
    monkeypatch.setattr(Comparator, "compare_accuracy", staticmethod(spy_compare))
    verify_forms(chain(), [images(2), images(3)])
    assert ran == [[(SessionRunner, "pytorch"), (SessionRunner, "exported")]]
    assert compared == [["pytorch", "exported"]] * 2
    assert capfd.readouterr() == ("", "")


def test_progress_counts_samples():
    done: list[int] = []
    verify_forms(chain(), [images(2), images(3)], progress=done.append)
    assert done == [2, 3]


def test_batches_are_streamed():
    alive: list[int] = []

    def batches():
        for index in range(4):
            alive.append(index)
            yield images(2, seed=index)

    seen: list[int] = []
    verify_forms(chain(), batches(), progress=lambda _: seen.append(len(alive)))
    assert seen == [1, 2, 3, 4]


def test_a_session_runner_describes_its_inputs():
    with SessionRunner(classifier(batch=4), "pytorch") as runner:
        metadata = runner.get_input_metadata(use_numpy_dtypes=False)
        assert tuple(metadata["input"].shape) == (4, 3)
        outputs = runner.infer({"input": images(4)})
        assert list(outputs) == ["logits"]
        assert runner.last_inference_time() > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected forms"),
        ([Form.from_session("a", classifier()), Form.from_session("a", classifier())], r"got \['a', 'a'\]"),
        ([Form("engine", None, reason="no GPU")], r"got \['engine'\]"),
    ],
)
def test_forms_that_make_no_chain(given, message):
    with pytest.raises(InputError, match=message):
        verify_forms(given, [images(1)])


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3), np.float32)]])
def test_no_sample(batches):
    with pytest.raises(InputError, match="no sample to verify with"):
        verify_forms(chain(), batches)


@pytest.mark.parametrize("x", [images(2, width=4), images(2).astype(np.float64), images(2)[:, :, None]])
def test_images_that_do_not_fit(x):
    with pytest.raises(InputError, match=r"input 'input': expected float32 \[batch, 3\], got float"):
        verify_forms(chain(), [x])


def test_outputs_that_do_not_fit_each_other():
    narrow = Form.from_onnx("fused", linear_model(WEIGHT[:, :2]), "fuse")
    with pytest.raises(InputError, match=r"output 'logits': the reference is \[2, 4\] and the candidate \[2, 2\]"):
        verify_forms(chain(narrow), [images(2)])


def test_labels_of_another_task():
    with pytest.raises(InputError, match="labels go from 0 to 9, and the model has 4 classes"):
        verify_forms(chain(), [Labelled(images(2), np.array([0, 9]))])
