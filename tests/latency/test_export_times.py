"""Timed runs in trtexec's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer.latency import Times
from edgeformer.latency.export_times import as_trtexec, write_times
from edgeformer.latency.runners import GpuTimes

# The names that trtexec of TensorRT 10 writes.
NAMES = [
    *("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs"),
    *("h2dMs", "computeMs", "d2hMs", "latencyMs"),
]


def test_runs_on_a_gpu() -> None:
    trace = [
        Times(10.0, 10.001, 10.006, GpuTimes(0.001, 0.003, 0.0005)),
        Times(10.01, 10.012, 10.02, GpuTimes(0.002, 0.004, 0.001)),
    ]
    first, second = as_trtexec(trace)
    assert list(first) == NAMES
    assert list(first.values()) == pytest.approx([0, 1, 0, 1, 1, 4, 4, 4.5, 1, 3, 0.5, 4.5])
    assert list(second.values()) == pytest.approx([10, 12, 10, 12, 12, 16, 16, 17, 2, 4, 1, 7])


def test_runs_on_the_cpu_are_all_compute() -> None:
    (found,) = as_trtexec([Times(5.0, 5.002, 5.002)])
    assert list(found.values()) == pytest.approx([0, 2, 0, 0, 0, 2, 2, 2, 0, 2, 0, 2])


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    trace = [Times(float(index), index + 0.5, index + 0.5) for index in range(3)]
    write_times(path, trace)
    assert json.loads(path.read_text()) == as_trtexec(trace)
    # An entry a line, as trtexec writes them: some scripts read it line by line.
    assert len(path.read_text().splitlines()) == 5
    assert as_trtexec([]) == []
