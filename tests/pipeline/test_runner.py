"""The runner: what it reuses, records and refuses; it knows no stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeformer.bundle import StageRecord, read_manifest, staging
from edgeformer.bundle.details import FiguresDetails
from edgeformer.pipeline import Observer
from edgeformer.pipeline.runner import Judged, Runner
from tests.bundle.test_publish import make_manifest
from tests.raising import raises


class Recorder(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def started(self, stage: str) -> None:
        self.events.append(("started", stage))

    def progressed(self, stage: str, text: str, done: int, total: int | None) -> None:
        self.events.append((stage, text, done, total))

    def finished(self, record: StageRecord) -> None:
        self.events.append(("finished", record.name, record.reused, record.verdict))


def run(target: Path, *, value: int = 1, always: bool = False) -> Recorder:
    """A bundle of one stage that writes ``value``."""
    recorder = Recorder()
    with staging(target) as work:
        runner = Runner(work, recorder)

        def make() -> Judged:
            runner.progress("count")("numbers", value, 3)
            runner.path("a.txt").write_text(str(value))
            return Judged("passed", "good", "a note")

        runner.run("count", ["a.txt"], make, {"value": value}, always=always)
        work.publish(make_manifest(work, runner.records))
    return recorder


def test_a_stage_runs_once_for_the_same_inputs(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    ran = [("started", "count"), ("count", "numbers", 1, 3), ("finished", "count", False, "passed")]
    assert run(target).events == ran
    assert run(target).events == [("finished", "count", True, "passed")]
    assert (target / "a.txt").read_text() == "1"
    assert run(target, always=True).events == ran
    assert run(target, value=2).events[0] == ("started", "count")
    assert (target / "a.txt").read_text() == "2"


def test_a_new_stage_with_figures_needs_nothing_else(tmp_path: Path) -> None:
    details = FiguresDetails(stage="timing", figures={"latency_p99_ms": 1.25})
    for reused in (False, True):
        with staging(tmp_path / "bundle") as work:
            runner = Runner(work)
            runner.run("timing", [], lambda: Judged("passed", "1.25 <= 2", details=details), {"runs": 100})
            work.publish(make_manifest(work, runner.records))
        stage = read_manifest(tmp_path / "bundle").stage("timing")
        assert stage is not None
        assert stage.details == details
        assert stage.reused == reused


def test_a_missed_gate_ends_the_run_and_is_recorded(tmp_path: Path) -> None:
    with staging(tmp_path / "bundle") as work:
        runner = Runner(work)
        with raises("EF801", "stage a", "2 > 1"):
            runner.run("a", [], lambda: Judged("missed", "2 > 1"), {})
    assert [(record.name, record.verdict) for record in runner.records] == [("a", "missed")]
    assert list(tmp_path.iterdir()) == []


def test_what_is_skipped_says_why(tmp_path: Path) -> None:
    recorder = Recorder()
    with staging(tmp_path / "bundle") as work:
        runner = Runner(work, recorder)
        runner.skip("engine", "no GPU")
    assert recorder.events == [("finished", "engine", False, "not run")]
    assert (runner.records[0].note, runner.records[0].key) == ("no GPU", "")


def test_progress_needs_no_observer(tmp_path: Path) -> None:
    with staging(tmp_path / "bundle") as work:
        assert Runner(work).progress("a")("b", 1, None) is None
