"""MLPerf's LoadGen with a model of ours under test; needs the package mlcommons-loadgen."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from edgeformer.errors import EnvironmentFault
from edgeformer.inference import Model
from edgeformer.latency.runners import arrays_for
from edgeformer.records.latency import LoadgenResult

__all__ = ["SCENARIOS", "Scenario", "run_loadgen"]

Scenario = Literal["singlestream", "multistream", "offline"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

_NAMES = {"singlestream": "SingleStream", "multistream": "MultiStream", "offline": "Offline"}
# Samples of a query of MultiStream, by MLPerf's rules.
_STREAMS = 8
_SAMPLES = 1024
_NANO = 1e9
_FIGURE = re.compile(r"^\s*(\S.*?)\s*:\s*([-+.\deE]+)\s*$", re.MULTILINE)
_SUMMARY = "mlperf_log_summary.txt"
# What follows in the summary are settings, and no figures.
_SETTINGS = "Test Parameters Used"


def run_loadgen(
    name: str,
    model: Model,
    scenario: Scenario,
    *,
    batch: int,
    seconds: float,
    logs: Path,
    loadgen: Any = None,
) -> LoadgenResult:
    """Let LoadGen send queries to a model, in its mode for performance.

    Args:
        name: of the model, for the result.
        model: loaded; it is run with the same random inputs each time.
        scenario: LoadGen's: one sample after the other, queries of eight, or one query of all.
        batch: images a run. SingleStream needs 1; a query of more samples takes several runs.
        seconds: that the test has to last at least.
        logs: a folder for LoadGen's logs, which is made.
        loadgen: the module; None imports it.

    Raises:
        InputError: the model has another batch, or does not run.
        EnvironmentFault: LoadGen is not installed, or it wrote no summary.
    """
    lg = loadgen or _import()
    feeds = arrays_for(model.describe(), batch)
    expected = _expected(lambda: model.run(feeds))
    failure: list[BaseException] = []

    def issue(samples: Sequence[Any]) -> None:
        for start in range(0, len(samples), batch):
            some = samples[start : start + batch]
            try:
                if not failure:
                    model.run(feeds)
            except BaseException as error:  # into LoadGen, which is C++, none may go
                failure.append(error)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(one.id, 0, 0) for one in some])

    logs.mkdir(parents=True, exist_ok=True)
    under_test = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(_SAMPLES, _SAMPLES, lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(
            under_test, library, _settings(lg, scenario, batch, expected, seconds), _log_settings(lg, logs)
        )
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(under_test)
    if failure:
        raise failure[0]
    return _result(name, scenario, batch, logs)


def _import() -> Any:
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", f"--loadgen needs MLPerf's LoadGen ({error}): pip install mlcommons-loadgen"
        ) from error
    return mlperf_loadgen


def _expected(run: Callable[[], Any]) -> float:
    """Seconds that a run takes, for LoadGen's plan of the test."""
    run()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _settings(lg: Any, scenario: Scenario, batch: int, expected: float, seconds: float) -> Any:
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, _NAMES[scenario])
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1e3 * seconds)
    settings.min_query_count = 1
    if scenario == "singlestream":
        settings.single_stream_expected_latency_ns = int(_NANO * expected)
    elif scenario == "multistream":
        settings.multi_stream_expected_latency_ns = int(_NANO * expected * -(-_STREAMS // batch))
        settings.multi_stream_samples_per_query = _STREAMS
    else:
        settings.offline_expected_qps = batch / expected
    return settings


def _log_settings(lg: Any, logs: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir = str(logs)
    output.copy_summary_to_stdout = False
    settings = lg.LogSettings()
    settings.log_output = output
    settings.enable_trace = False
    return settings


def _result(name: str, scenario: Scenario, batch: int, logs: Path) -> LoadgenResult:
    try:
        summary = (logs / _SUMMARY).read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault("EF916", f"LoadGen left no {_SUMMARY} in {logs}: {error.strerror}") from error
    found: dict[str, float] = {}
    for match in _FIGURE.finditer(summary.partition(_SETTINGS)[0]):
        try:
            found[match[1]] = float(match[2])
        except ValueError:  # a word with the letters of a number
            continue
    return LoadgenResult(
        name=name,
        scenario=scenario,
        batch=batch,
        valid=re.search(r"^Result is\s*:\s*VALID", summary, re.MULTILINE) is not None,
        figures=found,
        logs=logs.name,
    )
