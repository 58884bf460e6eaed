"""``edgeformer bench``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeformer.bundle import open_bundle
from edgeformer.bundle.details import LatencyDetails
from edgeformer.bundle.signature import sign_bundle
from edgeformer.cli.bench import command
from edgeformer.machine.devices import GpuSurvey
from tests.bundle.test_signature import write_keys
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, make_bundle, saved
from tests.latency.conftest import quick_warm_up as quick_warm_up
from tests.latency.test_bench import gpu as gpu
from tests.raising import raises

pytestmark = pytest.mark.usefixtures("quick_warm_up")
QUICK = ("--seconds", 0.1, "--threads", 1, "--backend", "onnxruntime")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "nano", classifier())


def run(*words: object) -> Result:
    environment = {"COLUMNS": "200"}
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False, env=environment)


def test_the_first_line_says_what_was_timed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(bundle, *QUICK).stdout.splitlines()[0]
    assert first.startswith("ONNX Runtime on the CPU was timed, no GPU (ONNX Runtime was asked for)")
    survey = GpuSurvey((), None, None, "no NVIDIA driver")
    monkeypatch.setattr("edgeformer.latency.bench.find_gpus", lambda: survey)
    first = run(bundle, "--seconds", 0.1).stdout.splitlines()[0]
    assert first.startswith("ONNX Runtime on the CPU was timed, no GPU (no NVIDIA driver)")


def test_tables_for_people(bundle: Path, tmp_path: Path) -> None:
    large = saved(classifier(classes=4000), tmp_path / "large.onnx")
    result = run(bundle, large, *QUICK)
    assert result.exit_code == 0
    text = result.stdout
    details = open_bundle(bundle).details(LatencyDetails)
    assert details is not None
    for one in details.report.figures[:2]:
        for percentile in (one.end_to_end.p50, one.end_to_end.p90, one.end_to_end.p99):
            shown = f"{percentile.ms:.4g}" if percentile.ms else f"{one.end_to_end.samples}/{percentile.needs}"
            assert shown in text
        assert f"{one.images_per_second:.{1 if one.images_per_second < 1000 else 0}f}" in text
        assert f"{one.name}, batch 1: CV {100 * one.end_to_end.cv:.1f} %, " in text
        assert f"{one.name}, batch 1: GPU time not measured: ONNX Runtime runs it on the CPU" in text
    assert details.report.advice is not None
    assert f"advice      {details.report.advice.text}" in text
    for comparison in details.report.comparisons:
        assert f"large.onnx {comparison.verdict} " in text
        assert f"nano, end to end, {comparison.statistic}, batch 1" in text
        assert comparison.reason in text
    assert f"recorded    {bundle}" in text
    assert "loaded again" not in text


def test_one_json_document(bundle: Path) -> None:
    document = json.loads(run(bundle, bundle, *QUICK, "--json", "--batch", 1, "--batch", 3).stdout)
    details = open_bundle(bundle).details(LatencyDetails)
    assert details is not None
    more = {name: document.pop(name) for name in ("timed", "recorded", "not_recorded")}
    assert document == details.report.model_dump(mode="json")
    assert more["recorded"] == [str(bundle)]
    assert more["timed"].startswith("ONNX Runtime")
    assert sorted({one["batch"] for one in document["figures"]}) == [1, 3]


def test_a_signed_bundle_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    key = write_keys(tmp_path)
    sign_bundle(bundle, key)
    assert f"not recorded in {bundle}: it is signed" in run(bundle, *QUICK).stdout
    assert f"recorded    {bundle}" in run(bundle, *QUICK, "--sign", key).stdout
    assert "recorded" not in run(bundle, *QUICK, "--no-record").stdout


def test_on_a_gpu(gpu: Any, bundle: Path) -> None:
    text = run(bundle, "--seconds", 0.1, "--trust-bundle").stdout
    assert text.splitlines()[0] == "TensorRT on RTX 9 was timed"
    on_gpu = [line.split() for line in text.splitlines() if line.split()[:1] == ["GPU"]]
    assert [line[-1] for line in on_gpu] == ["5", "5"]
    assert [line.split("end to end")[0].strip() for line in text.splitlines() if " end to end " in line] == [
        "nano x4",
        "nano x4, graphs",
    ]
    assert "nano, batch 4, graphs: CUDA graphs: 1 of 1 shapes captured" in text
    assert "0.0 MB of device memory" in text
    assert "GPU time not measured" not in text


def test_loadgen_is_told_where_it_is_missing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlperf_loadgen", None)
    with raises("EF601", "mlcommons-loadgen"):
        run(bundle, *QUICK, "--loadgen", "offline", "--loadgen-logs", tmp_path / "logs")


@pytest.mark.parametrize(
    "words",
    [(), ("--batch", 0), ("--seconds", 0), ("--baseline", "jax"), ("--loadgen", "server"), ("--cuda-graphs", 1)],
)
def test_options_out_of_range(bundle: Path, words: tuple[object, ...]) -> None:
    assert run(*([bundle, *words] if words else [])).exit_code == 2
