"""The whole of `benchmarks/gpu_check.py` on a machine without a GPU: the kernels on the CPU, made-up times."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.kernel_lab import cli, concurrency, correctness, flow, render, supervisor
from benchmarks.kernel_lab.journal import RESERVE
from benchmarks.kernel_lab.records import Report, load_report
from edgeformer.errors import EnvironmentFault
from edgeformer.ops.library_files import ENVIRONMENT_VARIABLE

from .conftest import ROOT, ended

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


class Rehearsal:
    def __init__(self, path: Path, output: str) -> None:
        self.path, self.output = path, output
        self.report: Report = load_report(path)


def rehearse(folder: Path, *words: str) -> tuple[int, str]:
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--rehearse", "--output", str(folder), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory, emulated_kernels: Path) -> Rehearsal:
    folder = tmp_path_factory.mktemp("rehearsal")
    code, output = rehearse(folder, "--shape", "224 stage 2", "--batch", "2", "--library", str(emulated_kernels))
    assert code == 0, output
    (path,) = folder.glob("*.json")
    return Rehearsal(path, output)


def test_every_step_is_taken_and_says_how_it_ended(rehearsal: Rehearsal) -> None:
    results = {phase.name: phase.status for phase in rehearsal.report.phases}
    assert tuple(results) == ("build", *flow.PHASES)
    assert {name for name, status in results.items() if status == "skipped"} == {"sanitizers", "tensorrt-rtx"}
    assert "failed" not in results.values()
    assert all(phase.note for phase in rehearsal.report.phases if phase.status == "skipped")


def test_a_rehearsal_is_marked_as_one(rehearsal: Rehearsal) -> None:
    assert rehearsal.report.kind == "rehearsal"
    assert "rehearsal" in rehearsal.path.name
    assert "rehearsal: build passed" in rehearsal.output
    assert "(rehearsal: the times are made up)" in render.describe(rehearsal.report)
    assert "(rehearsal)" in rehearsal.path.with_suffix(".svg").read_text()


def test_all_types_were_compared_with_float64(rehearsal: Rehearsal) -> None:
    cases = rehearsal.report.cases
    assert {(case.input_type, case.output_type) for case in cases} == {
        (kind.name, str(kind.output_type).removeprefix("torch.")) for kind in correctness.TYPES
    }
    assert {case.lepe_kernel for case in cases} == {0, 5}
    for case in cases:
        assert case.fault == ""
        assert case.relative_error is not None
        assert 0 < case.relative_error <= case.tolerance
        assert case.routing_exact == case.routing_rows > 0


def test_everything_was_timed(rehearsal: Rehearsal) -> None:
    found = {(t.implementation, t.input_type, t.graph, t.lepe) for t in rehearsal.report.timings if not t.variant}
    assert found == {
        ("fused", "float16", True, "none"),
        ("fused", "float16", False, "none"),
        ("fused", "float16", True, "fused"),
        ("fused", "float16", True, "conv"),
        ("fused", "int8", True, "none"),
        ("fused", "int8", True, "fused"),
        *((name, "float16", graph, "none") for name in ("eager", "sdpa", "compile", "flex") for graph in (True, False)),
    }
    assert all(t.low_us <= t.median_us <= t.high_us for t in rehearsal.report.timings)
    assert all(t.input_sets >= 2 for t in rehearsal.report.timings)


def test_tables_are_printed(rehearsal: Rehearsal) -> None:
    for title in ("Steps", "Correctness against float64", "The fused op", "Against PyTorch", "Goals"):
        assert title in rehearsal.output
    assert "224 stage 2" in rehearsal.output


def options(folder: Path, library: Path, **fields: Any) -> flow.Options:
    return flow.Options(**{"output": folder, "command": "test", "rehearse": True, "library": library, **fields})


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flow.run` without what would change this process."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")


@pytest.mark.usefixtures("in_process")
def test_a_spent_budget_drops_and_names(tmp_path: Path, emulated_kernels: Path) -> None:
    steps = ("correctness", "goals", "ceilings", "benchmark")
    report, path = flow.run(options(tmp_path, emulated_kernels, budget_seconds=1.0, phases=steps))
    assert not report.failed
    saved = load_report(path)
    phases = {phase.name: phase for phase in saved.phases}
    assert "t=1, all of 16" in phases["correctness"].dropped
    assert "224 stage 1 batch 32 flex graph=True" in phases["goals"].dropped
    assert "224 stage 1 batch 8 flex graph=True" not in phases["goals"].dropped
    assert any("flex" in label for label in phases["benchmark"].dropped)
    assert not saved.cases
    assert not saved.timings
    assert "dropped for time, first: t=1, all of 16" in render.describe(saved)


def test_each_step_leaves_time_for_the_ones_behind_it(tmp_path: Path, emulated_kernels: Path) -> None:
    def reserve(name: str, *phases: str) -> float:
        chosen = options(tmp_path, emulated_kernels, budget_seconds=500.0, phases=phases)
        return flow._Steps(None, None, None, None, chosen, None)._reserve(name)  # type: ignore[arg-type]

    assert reserve("correctness", *flow.PHASES) == pytest.approx(325.0)
    assert reserve("goals", *flow.PHASES) == pytest.approx(150.0)
    assert reserve("benchmark", *flow.PHASES) == RESERVE
    assert reserve("goals", "ceilings", "goals") == RESERVE
    # Typed in another order than they are taken in.
    assert reserve("correctness", "goals", "correctness") == pytest.approx(325.0)
    assert reserve("goals", "goals", "correctness") == RESERVE


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
NAMES = {"pydantic", "rich", "matplotlib", "polygraphy", "onnx_graphsurgeon", "mlxtend"}
sys.meta_path.insert(0, Absent())
"""


def test_a_machine_needs_little(tmp_path: Path, emulated_kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ["--library", str(emulated_kernels), "--shape", "224 stage 3", "--batch", "1"]
    for phase in ("ceilings", "goals", "concurrency"):
        words += ["--phase", phase]
    code, output = rehearse(tmp_path / "out", *words)
    assert code == 0, output
    assert "no plot: No module named 'matplotlib'" in output
    assert "### Goals" in output
    (path,) = (tmp_path / "out").glob("*.json")
    assert load_report(path).timings


# Takes the steps as `kernel_lab.flow` does, on kernels that hang, crash, and spoil the device.
BROKEN = """
import os, signal, sys, time
from pathlib import Path
from benchmarks.kernel_lab import backend, benchmark, concurrency, correctness, flow

plain_check, plain_time = correctness.check, benchmark._time_fused
def check(problem, where, library):
    if problem.name == "t=1, all of 16":
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from plain_check(problem, where, library)
def time_fused(shape, batch, precision, where, library, form):
    if form["graph"] and precision.name == "int8":
        time.sleep(600)
    return plain_time(shape, batch, precision, where, library, form)
def spoilt(*_):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
def check_streams(*_):
    backend.RehearsalBackend.synchronize = spoilt
    spoilt()

correctness.check, benchmark._time_fused, concurrency.check = check, time_fused, check_streams
flow._MEASUREMENT = 3.0
sys.exit(flow.main(Path(sys.argv[1])))
"""


def test_a_run_goes_on_behind_what_hangs_or_dies(
    tmp_path: Path, emulated_kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "broken.py"
    program.write_text(BROKEN)
    chosen = options(
        tmp_path / "out",
        emulated_kernels,
        phases=("correctness", "ceilings", "goals", "concurrency"),
        shapes=("224 stage 3",),
        batches=(2,),
        with_baselines=False,
    )
    found = supervisor.supervise(chosen, (sys.executable, str(program)))
    assert isinstance(found, tuple)
    report, path = found
    assert load_report(path) == report
    phases = {phase.name: phase for phase in report.phases}
    assert {name: phase.status for name, phase in phases.items()} == {
        "build": "passed",
        "correctness": "failed",
        "ceilings": "passed",
        "goals": "failed",
        "concurrency": "failed",
    }
    assert "t=1, all of 16: ended the process with SIGSEGV" in phases["correctness"].note
    assert {case.name for case in report.cases} == {"t=4, topk 16", "224 stage 3"}
    assert phases["goals"].note.endswith("did not end in time, and was stopped")
    assert {(timing.input_type, timing.graph) for timing in report.timings} == {("float16", True), ("float16", False)}
    assert phases["concurrency"].note == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert phases["goals"].seconds > 3.0  # with what was stopped
    output = capfd.readouterr().out
    assert output.count("going on behind") == 3
    assert "going on behind correctness: t=1, all of 16" in output


def test_a_process_that_dies_without_a_report_is_not_started_again(tmp_path: Path, emulated_kernels: Path) -> None:
    chosen = options(tmp_path, emulated_kernels)
    assert supervisor.supervise(chosen, (sys.executable, "-c", "import sys; sys.exit(4)")) == 4
    with pytest.raises(EnvironmentFault, match="building the kernels ended the process with SIGKILL"):
        supervisor.supervise(chosen, (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    short = options(tmp_path, emulated_kernels, budget_seconds=1.0)
    with pytest.raises(EnvironmentFault, match="building the kernels did not end in time"):
        supervisor.supervise(short, (sys.executable, "-c", "import time; time.sleep(60)"))


# Has a child with a child, says so, and hangs; stands for a step that waits for a tool, which waits for its program.
PARENT = """
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen(["/bin/sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
Path(sys.argv[-1]).with_name("family.part").write_text(f"{child.pid} {child.stdout.readline()}")
Path(sys.argv[-1]).with_name("family.part").rename(FAMILY)
ENDING
"""


def parent(folder: Path, ending: str = "time.sleep(600)") -> tuple[list[str], Path]:
    program, family = folder / "parent.py", folder / "family"
    program.write_text(PARENT.replace("FAMILY", repr(str(family))).replace("ENDING", ending))
    return [sys.executable, str(program)], family


def gone(family: Path) -> bool:
    pids = [int(word) for word in family.read_text().split()]
    assert len(pids) == 2
    return ended(pids)


def ends_with(ending: str, tmp_path: Path, library: Path, seconds: float) -> bool:
    command, family = parent(tmp_path, ending)
    with contextlib.suppress(EnvironmentFault):
        supervisor.supervise(options(tmp_path, library, budget_seconds=seconds), command)
    return gone(family)


@pytest.mark.parametrize(
    ("ending", "seconds"),
    [("time.sleep(600)", 3.0), ("import os; os.abort()", 60.0), ("sys.exit(4)", 60.0)],
    ids=["hangs", "crashes", "ends"],
)
def test_what_a_process_has_started_ends_with_it(
    tmp_path: Path, emulated_kernels: Path, ending: str, seconds: float
) -> None:
    assert ends_with(ending, tmp_path, emulated_kernels, seconds)


WATCHER = """
import sys
from pathlib import Path
from benchmarks.kernel_lab import flow, supervisor
supervisor.supervise(flow.Options(output=Path(sys.argv[1]), command="test", rehearse=True), sys.argv[2:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_processes(tmp_path: Path, number: signal.Signals) -> None:
    command, family = parent(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(tmp_path), *command], env=environment, stderr=subprocess.PIPE
    )
    for _ in range(600):
        if family.exists():
            break
        time.sleep(0.05)
    watcher.send_signal(number)
    watcher.communicate(timeout=30.0)
    assert watcher.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert gone(family)


# Begins a run as `kernel_lab.flow` does, and hangs in its first step; what is started behind it ends at once.
NEVER_THERE = """
import os, sys, time
from pathlib import Path
from benchmarks.kernel_lab import correctness, flow, journal

state = journal.load_journal(Path(sys.argv[1]))
if state.report is not None and MODE == "start":
    sys.exit(9)
def check(*_):
    while MODE == "hang":
        time.sleep(1.0)
    os.abort()
correctness.check = check
flow._PROBLEM = 600.0
sys.exit(flow.main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("mode", "seconds", "reason"),
    [
        ("hang", 25.0, "no time left"),
        ("start", 60.0, "starting a process for it ended the process with exit code 9"),
    ],
)
def test_steps_that_were_not_reached_are_named(
    tmp_path: Path, emulated_kernels: Path, mode: str, seconds: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_PROCESSES", 3)
    program = tmp_path / "broken.py"
    program.write_text(f"MODE = {mode!r}\n{NEVER_THERE}")
    steps = ("benchmark", "correctness", "goals")
    chosen = options(tmp_path / "out", emulated_kernels, budget_seconds=seconds, phases=steps)
    found = supervisor.supervise(chosen, (sys.executable, str(program)))
    assert isinstance(found, tuple)
    report, path = found
    assert load_report(path) == report
    assert [(phase.name, phase.status) for phase in report.phases] == [
        ("build", "passed"),
        ("correctness", "failed"),
        ("goals", "skipped"),
        ("benchmark", "skipped"),
    ]
    assert report.phases[2].note == report.phases[3].note == reason


@without_gpu
@pytest.mark.parametrize("program", [cli.gpu_check, cli.bench_kernels])
def test_without_a_gpu_it_says_so(program: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert program([]) == 4
    output, errors = capsys.readouterr()
    assert "no GPU that torch" in errors
    assert "--rehearse" in errors
    assert output == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rehearse"], "a rehearsal needs --output"),
        (["--rehearse", "--output", str(render.MEASUREMENTS)], "a rehearsal's times are made up: it does not go into"),
        (["--rehearse", "--output", str(render.MEASUREMENTS / "x")], "a rehearsal's times are made up"),
        (["--rehearse", "--output", "x", "--shape", "1024"], "no shape is called '1024'; there are: '224 stage 1'"),
        (["--rehearse", "--output", "x", "--batch", "0"], "must be at least 1"),
        (["--rehearse", "--output", "x", "--budget-seconds", "-1"], "must be at least 1"),
    ],
)
def test_bad_use_is_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.gpu_check(words) == 2
    assert message in capsys.readouterr().err


def test_a_rehearsal_refuses_the_library_of_a_gpu(plugin_library: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.gpu_check(["--rehearse", "--output", "x", "--library", str(plugin_library)]) == 2
    assert "runs the kernels on a GPU: a rehearsal needs the one that runs them on the CPU" in capfd.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_a_step_that_fails_is_kept_and_the_next_ones_run(
    tmp_path: Path, emulated_kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(concurrency, "check", broken)
    report, path = flow.run(options(tmp_path, emulated_kernels, phases=("concurrency", "sanitizers")))
    assert report.failed
    _, *steps = load_report(path).phases
    assert [(step.name, step.status) for step in steps] == [("concurrency", "failed"), ("sanitizers", "skipped")]
    assert "illegal memory access" in steps[0].note


@pytest.mark.parametrize("program", [cli.gpu_check, cli.bench_kernels])
def test_help(program: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program(["--help"])
    assert ended.value.code == 0
    assert "--rehearse" in capsys.readouterr().out


def test_bench_kernels_renders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.bench_kernels(["--render", "--output", str(tmp_path)]) == 0
    assert "No GPU run yet" in (tmp_path / "README.md").read_text()
    (tmp_path / "x.json").write_text("{}")
    assert cli.bench_kernels(["--render", "--output", str(tmp_path)]) == 2
    assert "is not a report of schema" in capsys.readouterr().err
