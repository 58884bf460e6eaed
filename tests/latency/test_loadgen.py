"""LoadGen: a double of its module, and the real one where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeformer.errors import InputError
from edgeformer.inference import Model, load
from edgeformer.latency.loadgen import SCENARIOS, Scenario, run_loadgen
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, saved
from tests.raising import raises

SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 123456
Result is : VALID
  Min duration satisfied : Yes
  Early stopping satisfied: Yes

================================================
Additional Stats
================================================
QPS w/ loadgen overhead         : 8100.25
50.00 percentile latency (ns)   : 1.1e+05

================================================
Test Parameters Used
================================================
samples_per_query : 8
"""


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    with load(saved(classifier(), tmp_path / "model.onnx"), threads=1) as model:
        yield model


class LoadgenDouble:
    """Sends one query, and writes a summary."""

    def __init__(self, samples: int, summary: str | None = SUMMARY) -> None:
        self.TestScenario = SimpleNamespace(SingleStream="s", MultiStream="m", Offline="o")
        self.TestMode = SimpleNamespace(PerformanceOnly="performance")
        self.TestSettings = self.LogSettings = self.LogOutputSettings = SimpleNamespace
        self._samples, self._summary = samples, summary
        self.completed: list[list[int]] = []
        self.settings = SimpleNamespace()
        self.alive = 0

    def ConstructSUT(self, issue: Callable[[Any], None], flush: Callable[[], None]) -> Any:  # noqa: N802
        self.alive += 1
        return issue

    def ConstructQSL(self, *_: Any) -> str:  # noqa: N802
        self.alive += 1
        return "qsl"

    def DestroySUT(self, _: Any) -> None:  # noqa: N802
        self.alive -= 1

    DestroyQSL = DestroySUT

    def QuerySampleResponse(self, number: int, address: int, size: int) -> int:  # noqa: N802
        return number

    def QuerySamplesComplete(self, responses: list[int]) -> None:  # noqa: N802
        self.completed.append(responses)

    def StartTestWithLogSettings(self, issue: Any, library: Any, settings: Any, logs: Any) -> None:  # noqa: N802
        self.settings = settings
        issue([SimpleNamespace(id=100 + index) for index in range(self._samples)])
        if self._summary is not None:
            Path(logs.log_output.outdir, "mlperf_log_summary.txt").write_text(self._summary)


@pytest.mark.parametrize(
    ("scenario", "samples", "batch", "queries"),
    [
        ("singlestream", 1, 1, [[100]]),
        ("multistream", 8, 4, [[100, 101, 102, 103], [104, 105, 106, 107]]),
        ("offline", 5, 2, [[100, 101], [102, 103], [104]]),
    ],
)
def test_queries_are_run_in_batches(
    model: Model, tmp_path: Path, scenario: Scenario, samples: int, batch: int, queries: list[list[int]]
) -> None:
    double = LoadgenDouble(samples)
    found = run_loadgen("m", model, scenario, batch=batch, seconds=2, logs=tmp_path / "a" / "logs", loadgen=double)
    assert double.completed == queries
    assert double.alive == 0
    assert double.settings.scenario == scenario[0]
    assert (double.settings.mode, double.settings.min_duration_ms) == ("performance", 2000)
    assert (found.name, found.scenario, found.batch, found.valid, found.logs) == ("m", scenario, batch, True, "logs")
    assert found.figures == {
        "90.0th percentile latency (ns)": 123456.0,
        "QPS w/ loadgen overhead": 8100.25,
        "50.00 percentile latency (ns)": 110000.0,
    }


def test_what_loadgen_expects(model: Model, tmp_path: Path) -> None:
    double = LoadgenDouble(8)
    run_loadgen("m", model, "multistream", batch=3, seconds=1, logs=tmp_path, loadgen=double)
    assert double.settings.multi_stream_samples_per_query == 8
    once = double.settings.multi_stream_expected_latency_ns / 3  # three runs of three
    assert 1e3 < once < 1e9
    run_loadgen("m", model, "offline", batch=4, seconds=1, logs=tmp_path, loadgen=double)
    assert double.settings.offline_expected_qps > 10


def test_a_run_that_is_not_valid(model: Model, tmp_path: Path) -> None:
    double = LoadgenDouble(1, SUMMARY.replace("VALID", "INVALID"))
    assert not run_loadgen("m", model, "singlestream", batch=1, seconds=1, logs=tmp_path, loadgen=double).valid


def test_a_model_that_fails_under_loadgen(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = LoadgenDouble(5)
    runs = iter(range(6))

    def run(feeds: Any) -> Any:
        if next(runs, None) is None:
            raise InputError("EF805", "it broke")

    monkeypatch.setattr(model, "run", run)
    with raises("EF805", "it broke"):
        run_loadgen("m", model, "offline", batch=2, seconds=1, logs=tmp_path, loadgen=double)
    # LoadGen waits for every sample, whatever happened.
    assert double.completed == [[100, 101], [102, 103], [104]]
    assert double.alive == 0


def test_no_summary(model: Model, tmp_path: Path) -> None:
    with raises("EF916", "mlperf_log_summary.txt", tmp_path):
        run_loadgen("m", model, "offline", batch=2, seconds=1, logs=tmp_path, loadgen=LoadgenDouble(1, None))


def test_loadgen_is_not_installed(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with raises("EF601", "pip install mlcommons-loadgen"):
        run_loadgen("m", model, "offline", batch=2, seconds=1, logs=tmp_path)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_real_loadgen(model: Model, tmp_path: Path, scenario: Scenario) -> None:
    pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed: pip install mlcommons-loadgen")
    batch = 1 if scenario == "singlestream" else 4
    found = run_loadgen("m", model, scenario, batch=batch, seconds=0.3, logs=tmp_path)
    names = {"singlestream": "percentile latency", "multistream": "percentile latency", "offline": "Samples per second"}
    figures = [value for name, value in found.figures.items() if names[scenario] in name]
    assert figures
    assert min(figures) > 0
    assert (tmp_path / "mlperf_log_detail.txt").stat().st_size > 0
