"""The calibration's counting; what it counts is for a machine that does nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.verdict_calibration import run as module
from benchmarks.verdict_calibration.run import Outcome, calibrate, called, main, measured
from benchmarks.verdict_calibration.subjects import write_graph
from edgeformer.latency import Subject, compare
from edgeformer.latency.measuring import Measured
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.latency.doubles import Machine


def test_one_run_of_each_kind(tmp_path: Path) -> None:
    found = measured(write_graph(tmp_path / "graph.onnx"), 0.5, 0.05, 1)
    assert [one.name for one in found.figures] == ["reference", "candidate", "control"]
    median = next(one for one in found.comparisons if one.statistic == "median")
    assert (median.name, median.reference) == ("candidate", "reference")


def simulated(path: Path, fraction: float, seconds: float, threads: int) -> Measured:
    """A run on a machine that is quiet, or under load where the script keeps processors busy."""
    machine = Machine(seed=int(1e3 * fraction))
    machine.others = module.busy  # type: ignore[attr-defined]
    some = [
        Subject("reference", machine.runner(0.01), 1),
        Subject("candidate", machine.runner(0.01 * (1 + fraction)), 1),
        Subject("control", machine.runner(0.01), 1, "control"),
    ]
    return compare(some, seconds=10 * seconds, load=machine.load_meter(), clock=machine.clock)


@pytest.fixture
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    @contextmanager
    def load(processes: int):  # type: ignore[no-untyped-def]
        module.busy = float(processes)  # type: ignore[attr-defined]
        yield
        module.busy = 0.0  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "busy", 0.0, raising=False)
    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "measured", simulated)


@pytest.mark.usefixtures("_machine")
def test_every_kind_is_held_to_its_goal() -> None:
    told: list[Outcome] = []
    found = calibrate(Path("m"), runs=3, seconds=0.4, threads=1, refusals=2, tell=told.append)
    assert found == told
    assert [one.kind for one in found] == [
        "equals",
        "5 % slower",
        "1 % slower",
        "10 % slower under load",
        "10 % slower, too few samples",
    ]
    assert found[0].verdicts == {"no difference": 3}
    assert found[1].verdicts == {"slower": 3}
    assert found[3].verdicts == found[4].verdicts == {"not decided": 2}
    assert [sum(one.p99.values()) for one in found] == [3, 3, 3, 2, 2]
    assert all(one.passed for one in found)
    assert found[1].ratios == pytest.approx([1.05] * 3, rel=0.01)


@pytest.mark.usefixtures("_machine")
def test_a_missed_goal_ends_with_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--runs", "2", "--refusals", "1", "--seconds", "0.4"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert [one["passed"] for one in document["outcomes"]] == [True] * 5
    # Verdicts that see nothing.
    monkeypatch.setattr(
        module, "measured", lambda path, fraction, seconds, threads: simulated(path, 0.0, seconds, threads)
    )
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code
    assert "MISSED" in capsys.readouterr().out


def test_what_is_counted() -> None:
    assert called(Counter({"faster": 2, "slower": 1, "no difference": 9})) == 3
