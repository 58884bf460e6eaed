"""The figures of the call's overhead: from both in turns, and only where both give the same results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_call_overhead
from benchmarks.bench_call_overhead import RUNS_IN_EACH_ORDER, Overhead, main, measure, of_calls
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import small_bundle as small_bundle


def test_what_drifts_falls_on_both() -> None:
    """A clock on which each call takes longer than the one before, and ours 7 us more."""
    now = 0.0
    turn = 0

    def call(extra: float) -> None:
        nonlocal now, turn
        turn += 1
        now += (100 + turn + extra) * 1e-6

    found = measure(lambda: call(7), lambda: call(0), lambda: now, rounds=5, calls=4)
    assert found.overhead_us == pytest.approx(7)
    assert found.ratio == pytest.approx(1 + 7 / found.bare_us)


def test_of_a_bundle(small_bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program = tmp_path / "call_overhead"
    line = '{\\"bare_us\\": 5, \\"overhead_us\\": $(($3 + $#))}'
    program.write_text(f'#!/bin/sh\ntest -e "$1" && test -f "$2" && echo "{line}"\n')
    program.chmod(0o755)
    main([str(small_bundle), "--rounds", "4", "--calls", "2", "--json", "--cpp", str(program)])
    document = json.loads(capsys.readouterr().out)
    for graph in ("python", "python_empty_graph"):
        assert set(document[graph]) == {"wall", "thread CPU", "control"}
        assert all(one["bare_us"] > 0 and one["ratio"] > 0.1 for one in document[graph].values())
    for graph in ("cpp", "cpp_empty_graph"):
        found = document[graph]
        # One word more asks for the other order.
        assert [run["overhead_us"] for run in found["runs"]] == [8, 9] * RUNS_IN_EACH_ORDER
        assert (found["bare_us"], found["overhead_us"]) == (5, 8.5)
        assert found["overhead_standard_error_us"] == pytest.approx(0.189, abs=0.001)
    first = document["first"]
    assert 0 < first["loaded_seconds"] < first["first_result_seconds"]
    assert first["session_seconds"] > 0


def test_people_get_sentences(
    small_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {"loaded_seconds": 0.1, "first_result_seconds": 0.25, "session_seconds": 0.125}
    monkeypatch.setattr(bench_call_overhead, "of_first_results", lambda bundle, rounds: first)
    monkeypatch.setattr(bench_call_overhead, "of_calls", lambda *_: {"wall": Overhead(100.0, 5.0, 1.05)})
    main([str(small_bundle)])
    printed = capsys.readouterr().out
    for name in ("wall", "wall, empty graph"):
        assert f"a call, {name}: 5.0 us beside 100.0 us of ONNX Runtime (1.0500 times)" in printed
    assert "to the first result: 0.250 s" in printed
    assert "0.125 s for a session" in printed


def test_different_results_are_no_comparison(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.zeros((1, 4), np.float32)]

    monkeypatch.setattr(bench_call_overhead, "bare_session", lambda graph: Other())
    with pytest.raises(ValueError, match="differ"):
        of_calls(small_bundle, 1, 1)


def test_a_program_that_fails_is_not_passed_over(small_bundle: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        main([str(small_bundle), "--rounds", "1", "--calls", "1", "--cpp", "/bin/false"])
