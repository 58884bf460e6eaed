"""Timed bundles hold what was found, and stay bundles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeformer.bundle import open_bundle
from edgeformer.bundle.details import LatencyDetails
from edgeformer.bundle.signature import check_signature, sign_bundle
from edgeformer.inference import load
from edgeformer.latency.bench import Settings
from edgeformer.pipeline import benchmark as module
from edgeformer.pipeline.benchmark import BenchRequest, BenchResult, bench_models
from tests.bundle.test_signature import public_of, write_keys
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, make_bundle, saved
from tests.latency.conftest import quick_warm_up as quick_warm_up
from tests.raising import raises

pytestmark = pytest.mark.usefixtures("quick_warm_up")
QUICK = Settings(seconds=0.05, threads=1, backend="onnxruntime")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "nano", classifier())


def bench(*paths: Path, **more: object) -> BenchResult:
    return bench_models(BenchRequest(paths, **{"settings": QUICK, **more}))  # type: ignore[arg-type]


def test_the_figures_are_in_the_manifest(bundle: Path, tmp_path: Path) -> None:
    before = open_bundle(bundle)
    found = bench(bundle)
    assert (found.recorded, found.not_recorded) == ((bundle,), {})
    after = open_bundle(bundle)
    details = after.details(LatencyDetails)
    assert details is not None
    assert details == LatencyDetails(name="nano", report=found.report)
    record = after.stage("latency")
    assert record is not None
    assert (record.verdict, record.files) == ("not judged", [])
    assert record.note is not None
    assert f"{found.report.figures[0].end_to_end.p50.ms:.3g} ms end to end at batch 1" in record.note
    assert after.model_copy(update={"stages": before.stages}) == before
    # Where it was measured is nobody's business.
    assert str(tmp_path) not in (bundle / "manifest.json").read_text()
    # The runtime takes the bundle as before, and a second run replaces the first.
    with load(bundle) as model:
        assert model.describe().name == before.model.name
    again = bench(bundle)
    assert [stage.name for stage in open_bundle(bundle).stages].count("latency") == 1
    kept = open_bundle(bundle).details(LatencyDetails)
    assert kept is not None
    assert kept.report == again.report


def test_two_bundles_of_one_name_and_a_file(bundle: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "elsewhere" / "nano", classifier())
    graph = saved(classifier(), tmp_path / "graph.onnx")
    found = bench(bundle, other, graph)
    names = [one.name for one in found.report.figures if one.kind == "model"]
    assert names == ["nano", "nano (2)", "graph.onnx"]
    assert found.recorded == (bundle, other)
    for path, name in ((bundle, "nano"), (other, "nano (2)")):
        details = open_bundle(path).details(LatencyDetails)
        assert details is not None
        assert details.name == name
        assert details.report.advice == found.report.advice
        assert found.report.advice is not None
        stage = open_bundle(path).stage("latency")
        assert stage is not None
        assert found.report.advice.text in (stage.note or "")


def test_a_bundle_beside_itself(bundle: Path) -> None:
    found = bench(bundle, bundle)
    assert [one.name for one in found.report.figures if one.kind == "model"] == ["nano", "nano (2)"]
    assert found.recorded == (bundle,)


def test_no_record(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    found = bench(bundle, record=False)
    assert (found.recorded, found.not_recorded) == ((), {})
    assert (bundle / "manifest.json").read_bytes() == before


def test_signed_bundles(bundle: Path, tmp_path: Path) -> None:
    key = write_keys(tmp_path)
    sign_bundle(bundle, key)
    found = bench(bundle)
    assert found.recorded == ()
    assert "--sign" in found.not_recorded[bundle]
    check_signature(bundle, public_of(key))
    assert bench(bundle, sign=key, key=public_of(key)).recorded == (bundle,)
    check_signature(bundle, public_of(key))
    assert open_bundle(bundle).details(LatencyDetails) is not None
    with raises("EF773"):
        bench(bundle, key=public_of(write_keys(tmp_path, "other")))


def test_a_manifest_that_cannot_be_written(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "record_stage", refuse)
    found = bench(bundle)
    assert found.recorded == ()
    assert "Permission denied" in found.not_recorded[bundle]


def test_a_damaged_bundle_is_not_timed(bundle: Path) -> None:
    (bundle / "typed.onnx").write_bytes(b"other")
    with raises("EF704", "typed.onnx"):
        bench(bundle)


def test_exported_times(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    found = bench(bundle, export_times=path)
    entries = json.loads(path.read_text())
    assert len(entries) == found.report.figures[0].end_to_end.samples
    longest = max(entry["latencyMs"] for entry in entries)
    assert longest == pytest.approx(found.report.figures[0].end_to_end.max.ms, abs=1e-5)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"export_times": Path("t.json"), "settings": replace(QUICK, batches=(1, 2))}, "EF104", ("--export-times",)),
        ({"export_times": Path("t.json"), "baselines": ("pytorch",)}, "EF104", ("--export-times",)),
        ({"loadgen": "offline"}, "EF103", ("--loadgen-logs",)),
        ({"loadgen_logs": Path("logs")}, "EF103", ("--loadgen",)),
        (
            {"loadgen": "singlestream", "loadgen_logs": Path("l"), "settings": replace(QUICK, batches=(2,))},
            "EF104",
            ("singlestream", "--batch"),
        ),
        ({"sign": Path("key.pem"), "record": False}, "EF104", ("--sign", "--no-record")),
        ({"sign": Path("key.pem")}, "EF102", ("key.pem",)),
        ({"checkpoint": Path("c.pth")}, "EF104", ("--checkpoint", "--baseline")),
    ],
)
def test_options_that_do_not_go_together(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object], code: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, "bench", None)  # nothing is timed before
    with raises(code, *words):
        bench(bundle, **more)


def test_what_is_given(bundle: Path, tmp_path: Path) -> None:
    with raises("EF103", "bundle"):
        bench()
    graph = saved(classifier(), tmp_path / "graph.onnx")
    with raises("EF131", graph):
        bench(graph, export_times=graph)
    with raises("EF918", "--baseline needs a bundle"):
        bench(graph, baselines=("onnxruntime",))
