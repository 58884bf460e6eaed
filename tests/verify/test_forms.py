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
from edgeformer.verify import Stage, forms, require, verify_stages
from edgeformer.verify.routing import RoutingOutput
from edgeformer.verify.runner import SessionRunner
from tests.verify.conftest import FunctionSession, Labelled, images, linear_model, routing_model

WEIGHT = np.random.default_rng(20).standard_normal((3, 4))


def classifier(weight=WEIGHT, **options):
    return FunctionSession(lambda x: x @ weight.astype(np.float32), **options)


def scaled(factor: float):
    return linear_model(WEIGHT * factor)


def chain(*tail: Stage) -> list[Stage]:
    return [
        Stage.from_session("pytorch", classifier()),
        Stage.from_onnx("exported", linear_model(WEIGHT), "export"),
        *tail,
    ]


def test_stages_that_meet_their_gates():
    fused = Stage.from_onnx("fused", scaled(1 + 5e-6), "fuse")
    typed = Stage.from_onnx("typed", scaled(1.01), "fp16")
    report = verify_stages(chain(fused, typed), [images(5), images(4, seed=1)])
    assert [(s.name, s.status, s.against) for s in report.stages] == [
        ("pytorch", "reference", None),
        ("exported", "passed", "pytorch"),
        ("fused", "passed", "exported"),
        ("typed", "passed", "pytorch"),
    ]
    assert (report.passed, report.samples, report.labelled, report.not_run) == (True, 9, False, ())
    require(report)
    typed_report = report.stages[3]
    assert typed_report.previous["logits"].max_abs_relative == pytest.approx(0.01, rel=1e-2)
    assert typed_report.first["logits"].snr_db == pytest.approx(40.0, abs=0.01)
    assert typed_report.previous["logits"].samples == 9
    assert all(stage.seconds > 0 for stage in report.stages)


def test_each_stage_is_compared_with_the_one_before_and_with_the_first():
    report = verify_stages(chain(Stage.from_onnx("a", scaled(1.01)), Stage.from_onnx("b", scaled(1.03))), [images(6)])
    last = report.stages[3]
    assert last.status == "not judged"
    assert last.first["logits"].max_abs_relative == pytest.approx(0.03, rel=1e-4)
    assert last.previous["logits"].max_abs_relative == pytest.approx(0.02 / 1.01, rel=1e-4)


def test_a_missed_gate_names_stage_figure_and_limit():
    report = verify_stages(chain(Stage.from_onnx("fused", scaled(1.001), "fuse")), [images(5)])
    assert [stage.status for stage in report.stages] == ["reference", "passed", "missed"]
    assert not report.passed
    with pytest.raises(GateMissed) as caught:
        require(report)
    verdict = report.stages[2].verdict
    assert verdict.value == pytest.approx(1e-3, rel=1e-3)
    assert str(caught.value) == (
        f"stage 'fused' against 'exported': max |diff| / max |ref| {verdict.value:.6g} MISSES <= 1e-05"
    )


def test_every_missed_gate_is_named():
    tail = [Stage.from_onnx("fused", scaled(1.1), "fuse"), Stage.from_onnx("typed", linear_model(-WEIGHT), "fp16")]
    with pytest.raises(GateMissed, match=r"stage 'fused'.*stage 'typed' against 'pytorch': cosine -1 MISSES"):
        require(verify_stages(chain(*tail), [images(5)]))


def test_nan_in_one_batch_misses_the_gate():
    def broken(x):
        y = x @ WEIGHT.astype(np.float32)
        return np.where(len(x) == 2, np.nan, y).astype(np.float32)

    typed = Stage.from_session("typed", FunctionSession(broken), "fp16")
    report = verify_stages(chain(typed), [images(5), images(2, seed=1), images(5, seed=2)])
    assert report.stages[2].status == "missed"
    assert math.isnan(report.stages[2].verdict.value)
    assert report.stages[2].first["logits"].nonfinite == 8


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
    report = verify_stages(
        chain(Stage.from_session("typed", wrong_for_the_first(changed), "int8")), [batch], max_drop=max_drop
    )
    stage = report.stages[2]
    assert report.labelled
    assert (stage.status, stage.verdict.metric, stage.verdict.value) == (status, "accuracy_drop", float(changed))
    assert stage.accuracy.correct == 100 - changed
    assert report.stages[0].accuracy.correct == 100


def test_int8_without_labels_is_judged_by_agreement():
    batch = labelled(100)
    report = verify_stages(chain(Stage.from_session("typed", wrong_for_the_first(2), "int8")), [batch.images])
    stage = report.stages[2]
    assert (stage.status, stage.verdict.metric, stage.verdict.value) == ("missed", "top1_agreement", 0.98)
    assert stage.accuracy is None


def test_labels_in_some_batches_only_are_not_used():
    report = verify_stages(chain(), [labelled(4), images(4)])
    assert not report.labelled
    assert report.stages[0].accuracy is None


def test_dense_outputs_the_worst_decides():
    def dense(noise: float):
        return lambda x: {"stage0": x[:, :, None], "stage1": x[:, ::-1, None] * np.float32(1 + noise)}

    first = FunctionSession(dense(0.0), outputs=("stage0", "stage1"), rank=3)
    second = FunctionSession(dense(1e-3), outputs=("stage0", "stage1"), rank=3)
    report = verify_stages(
        [Stage.from_session("pytorch", first), Stage.from_session("exported", second, "export")], [labelled(5)]
    )
    stage = report.stages[1]
    assert stage.first["stage0"].max_abs == 0.0
    assert stage.status == "missed"
    assert stage.verdict.value == stage.first["stage1"].max_abs_relative
    assert stage.accuracy is None


@pytest.mark.parametrize("fixed", [4, 3])
def test_a_fixed_batch_is_filled_up_and_the_copies_are_dropped(fixed):
    pytorch = classifier()
    report = verify_stages(
        [
            Stage.from_session("pytorch", pytorch),
            Stage.from_onnx("exported", linear_model(WEIGHT, batch=fixed), "export"),
        ],
        [labelled(7), labelled(4)],
    )
    assert pytorch.sizes == {4: [4, 4, 4], 3: [3, 3, 3, 3, 3]}[fixed]
    assert report.samples == 11
    assert report.stages[1].first["logits"].samples == 11
    assert report.stages[1].accuracy.total == 11


def test_onnx_files(tmp_path):
    onnx.save_model(linear_model(WEIGHT), tmp_path / "exported.onnx")
    stage = Stage.from_onnx("exported", tmp_path / "exported.onnx", "export", threads=1)
    report = verify_stages([Stage.from_session("pytorch", classifier()), stage], [images(3)])
    assert report.stages[1].status == "passed"
    with pytest.raises(InputError, match=r"gone\.onnx"):
        Stage.from_onnx("exported", tmp_path / "gone.onnx")


def test_stages_that_fix_different_batches():
    tail = Stage.from_onnx("fused", linear_model(WEIGHT, batch=2))
    first = Stage.from_onnx("exported", linear_model(WEIGHT, batch=3))
    with pytest.raises(InputError, match=r"different batch sizes \(exported: 3, fused: 2\)"):
        verify_stages([first, tail], [images(6)])


def test_an_engine_without_gpu_is_not_run_and_not_passed(monkeypatch, tmp_path):
    monkeypatch.setattr(forms, "find_gpus", lambda: GpuSurvey((), None, None, "no NVIDIA driver (test)"))
    engine = Stage.from_engine("engine", tmp_path / "model.engine", "int8")
    report = verify_stages(chain(engine), [images(5)])
    stage = report.stages[2]
    assert (stage.name, stage.status, stage.text) == ("engine", "not run", "engine not run: no GPU")
    assert stage.verdict is None
    assert report.not_run == ("engine",)
    assert report.to_dict()["not_run"] == ["engine"]
    require(report)


def test_an_engine_for_another_gpu_is_not_run(monkeypatch, tmp_path):
    survey = GpuSurvey((Gpu(0, "GPU", 86, 1 << 33),), "580.65", "13.0", "")
    monkeypatch.setattr(forms, "find_gpus", lambda: survey)
    monkeypatch.setattr(forms, "can_run_engine", lambda *_, **__: True)
    monkeypatch.setattr(forms, "EngineSession", lambda *_, **__: classifier())
    engine = Stage.from_engine("engine", tmp_path / "model.engine", "int8", sm=89)
    assert engine.session is None
    assert engine.reason == "engine not run: it is for SM 89, and this machine's GPU is a GPU (SM 86)"
    for sm in (86, None):
        assert Stage.from_engine("engine", tmp_path / "model.engine", "int8", sm=sm).session is not None


def test_a_stage_closes_its_session():
    session = classifier()
    with Stage.from_session("pytorch", session) as stage:
        verify_stages([stage], [images(2)])
        assert not session.closed
    assert session.closed
    with pytest.raises(InputError, match="the function cannot run: its session was closed"):
        verify_stages([stage], [images(2)])
    with Stage("engine", None, "int8", reason="no GPU") as nothing:
        assert nothing.session is None


def test_an_engine_without_tensorrt_is_not_run(monkeypatch, tmp_path):
    survey = GpuSurvey((Gpu(0, "GPU", 86, 1 << 33),), "580.65", "13.0", "")
    monkeypatch.setattr(forms, "find_gpus", lambda: survey)
    monkeypatch.setattr("edgeformer.runtime.gpu.find_gpus", lambda: survey)
    monkeypatch.setattr("edgeformer.runtime.gpu.installed_flavours", lambda: ())
    engine = Stage.from_engine("engine", tmp_path / "model.engine", "int8", flavour="tensorrt_rtx")
    assert engine.session is None
    assert (
        engine.reason == "engine not run: the Python module 'tensorrt_rtx' is not installed: pip install tensorrt-rtx"
    )


def routed_chain(**changes):
    reference = OnnxSession(routing_model())
    return [
        Stage.from_session("pytorch", reference),
        Stage.from_onnx("exported", routing_model(), "export"),
        Stage.from_onnx("fused", routing_model(**changes), "fuse"),
        Stage.from_onnx("typed", routing_model(), "fp16"),
    ]


def routed_images(count: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((count, 4, 6, 12)).astype(np.float32)


def test_routing_agreement_is_reported_against_the_first_and_the_one_before():
    report = verify_stages(routed_chain(shift=0.75), [routed_images(4)])
    pytorch, exported, fused, typed = report.stages
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
    stages = [
        Stage("exported", exported, routing=routing),
        Stage("fused", _routes(flipped, moved), "fuse", routing=routing),
    ]
    fused = verify_stages(stages, [images(100)]).stages[1]
    assert fused.status == status
    assert text in fused.text
    assert fused.first["logits"].max_abs == pytest.approx(1e-2, rel=1e-3), "the figures are those of all samples"


def test_the_report_is_json():
    tail = [
        Stage.from_onnx("fused", linear_model(WEIGHT), "fuse"),
        Stage("engine", None, "fp16", reason="engine not run: no GPU"),
    ]
    report = verify_stages(chain(*tail), [labelled(6)])
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["passed"] is True
    assert [stage["status"] for stage in data["stages"]] == ["reference", "passed", "passed", "not run"]
    assert data["stages"][2]["previous"]["logits"]["snr_db"] == "inf"
    assert data["stages"][1]["verdict"]["limit"] == 1e-4
    assert data["stages"][0]["accuracy"] == {"correct": 6, "total": 6, "top1": 1.0}
    routed = json.loads(json.dumps(verify_stages(routed_chain(), [routed_images(2)]).to_dict(), allow_nan=False))
    assert routed["stages"][2]["routing_first"]["stages"] == {"0": 1.0, "2": 1.0}


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
    verify_stages(chain(), [images(2), images(3)])
    assert ran == [[(SessionRunner, "pytorch"), (SessionRunner, "exported")]]
    assert compared == [["pytorch", "exported"]] * 2
    assert capfd.readouterr() == ("", "")


def test_progress_counts_samples():
    done: list[int] = []
    verify_stages(chain(), [images(2), images(3)], progress=done.append)
    assert done == [2, 3]


def test_batches_are_streamed():
    alive: list[int] = []

    def batches():
        for index in range(4):
            alive.append(index)
            yield images(2, seed=index)

    seen: list[int] = []
    verify_stages(chain(), batches(), progress=lambda _: seen.append(len(alive)))
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
        ([], "expected stages"),
        ([Stage.from_session("a", classifier()), Stage.from_session("a", classifier())], r"got \['a', 'a'\]"),
        ([Stage("engine", None, reason="no GPU")], r"got \['engine'\]"),
    ],
)
def test_stages_that_make_no_chain(given, message):
    with pytest.raises(InputError, match=message):
        verify_stages(given, [images(1)])


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3), np.float32)]])
def test_no_sample(batches):
    with pytest.raises(InputError, match="no sample to verify with"):
        verify_stages(chain(), batches)


@pytest.mark.parametrize("x", [images(2, width=4), images(2).astype(np.float64), images(2)[:, :, None]])
def test_images_that_do_not_fit(x):
    with pytest.raises(InputError, match=r"input 'input': expected float32 \[batch, 3\], got float"):
        verify_stages(chain(), [x])


def test_outputs_that_do_not_fit_each_other():
    narrow = Stage.from_onnx("fused", linear_model(WEIGHT[:, :2]), "fuse")
    with pytest.raises(InputError, match=r"output 'logits': the reference is \[2, 4\] and the candidate \[2, 2\]"):
        verify_stages(chain(narrow), [images(2)])


def test_labels_of_another_task():
    with pytest.raises(InputError, match="labels go from 0 to 9, and the model has 4 classes"):
        verify_stages(chain(), [Labelled(images(2), np.array([0, 9]))])
