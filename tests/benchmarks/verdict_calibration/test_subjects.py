"""What the calibration times."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeformer as ef
from benchmarks.verdict_calibration.subjects import Slowed, load, write_graph
from edgeformer.latency import HostRunner
from edgeformer.latency.load import LoadMeter
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.latency.doubles import Machine


def test_the_graph_runs(tmp_path: Path) -> None:
    with ef.load(write_graph(tmp_path / "graph.onnx"), backend="onnxruntime", threads=1) as model:
        times = HostRunner(model, 1).run()
    assert 0 < times.end - times.start < 1


def test_a_slow_down_is_as_long_as_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    inner = machine.runner(0.01, noise=0.001)

    def clock() -> float:
        machine.now += 1e-6
        return machine.now

    monkeypatch.setattr("benchmarks.verdict_calibration.subjects.time.perf_counter", clock)
    slowed = Slowed(inner, 0.05)
    assert slowed.seconds == pytest.approx(0.0005, rel=0.01)
    times = slowed.run()
    assert times.end - times.start == pytest.approx(0.0105, rel=0.01)
    slowed.close()
    assert inner.closed


def test_the_load_is_there_and_goes() -> None:
    with load(1):
        meter = LoadMeter()
        import time

        time.sleep(0.8)
        meter.round_ended()
    assert meter.figures().cores > 0.4
