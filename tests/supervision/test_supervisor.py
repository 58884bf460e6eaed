"""The process that waits: whatever the worker does with a signal or a limit, it ends in time and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The project's promise is 2 s; a machine under load is given more, and a worker that is not ended sleeps for a minute.
SECONDS = 10.0
START = """
import ctypes, os, signal, subprocess, sys, time
from edgeformer import supervision
from edgeformer.supervision.supervisor import supervise
supervise()
def ready():
    print(os.getpid(), flush=True)
def swallow(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except BaseException:
            pass
"""
# Native code that keeps the GIL: no Python code runs meanwhile, no handler and no thread.
WITH_GIL = "ctypes.PyDLL(None).sleep(60)"
WAYS = {
    "python": "time.sleep(60)",
    "swallowed": "swallow(60)",
    "native": "ctypes.CDLL(None).sleep(60)",
    "native that keeps the GIL": WITH_GIL,
    "dropped in a callback": """
class Callback:
    def __del__(self):
        ready()
        time.sleep(60)
Callback()
swallow(60)
""",
    "turned into another error": """
try:
    time.sleep(60)
except SystemExit as error:
    raise ValueError("from native code") from error
""",
}


class Program:
    """A supervised process and its worker."""

    def __init__(self, body: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START + body, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever starts the tests may have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait_until_ready(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(body: str, *words: str) -> Program:
        started.append(Program(body, *words))
        return started[-1]

    yield start
    for item in started:
        item.process.kill()
        item.process.communicate()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("way", WAYS)
def test_a_signal_ends_the_worker_whatever_it_does(
    program: Callable[..., Program], tmp_path: Path, number: signal.Signals, way: str
) -> None:
    folder, file = tmp_path / "staging", tmp_path / "a.partial"
    folder.mkdir()
    (folder / "b").touch()
    file.touch()
    body = f"""
supervision.removed_at_early_end({str(folder)!r})
supervision.removed_at_early_end({str(file)!r})
child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=2, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
ready()
{WAYS[way]}
"""
    running = program(body)
    child, worker = running.wait_until_ready(), running.wait_until_ready()
    time.sleep(0.1)
    sent = time.monotonic()
    running.process.send_signal(number)
    code, _, errors = running.end()
    assert code == 128 + number
    assert time.monotonic() - sent < SECONDS
    assert errors.splitlines() == [errors.strip()], "one line, no traceback"
    assert errors.endswith("; nothing was left behind\n")
    assert not alive(worker)
    assert not alive(child)
    assert list(tmp_path.iterdir()) == []


def test_folders_made_for_a_result_go_where_they_are_empty(program: Callable[..., Program], tmp_path: Path) -> None:
    body = f"""
from pathlib import Path
from edgeformer.outputs import making_folders
base = Path({str(tmp_path)!r})
with making_folders(base / "used" / "inner"):
    pass
with making_folders(base / "a" / "b"), making_folders(base / "c" / "d"):
    (base / "c" / "mine").touch()
    (base / "a" / "b" / "staging").mkdir()
    supervision.removed_at_early_end(base / "a" / "b" / "staging")
    ready()
    {WITH_GIL}
"""
    running = program(body)
    running.wait_until_ready()
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 143
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["c", "c/mine", "used", "used/inner"]


def test_a_second_signal_ends_the_worker_at_once(program: Callable[..., Program]) -> None:
    running = program("ready()\nswallow(60)")
    running.wait_until_ready()
    sent = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 130
    assert time.monotonic() - sent < SECONDS


def test_a_worker_that_cleans_up_is_not_disturbed_by_a_second_signal(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    body = f"""
try:
    ready()
    time.sleep(60)
finally:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    open({str(tmp_path / "clean")!r}, "w").close()
"""
    running = program(body)
    running.wait_until_ready()
    running.process.send_signal(signal.SIGTERM)
    code, _, errors = running.end()
    assert code == 143
    assert errors == "terminated; nothing was left behind\n"
    assert (tmp_path / "clean").exists()


def test_the_terminals_ctrl_c_reaches_both_and_counts_once(program: Callable[..., Program]) -> None:
    running = program("ready()\ntime.sleep(60)")
    running.wait_until_ready()
    os.killpg(running.process.pid, signal.SIGINT)
    code, _, errors = running.end()
    assert (code, errors) == (130, "interrupted; nothing was left behind\n")


FINAL = """
with supervision.temporary({partial!r}):
    with supervision.final_step():
        ready()
        swallow(1.5)
        os.rename({partial!r}, {target!r})
    print("published", flush=True)
    time.sleep(60)
"""


def test_a_signal_in_the_final_step_waits_for_it(program: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "partial").touch()
    running = program(FINAL.format(partial=str(tmp_path / "partial"), target=str(tmp_path / "target")))
    running.wait_until_ready()
    running.process.send_signal(signal.SIGINT)
    code, _, errors = running.end()
    assert (code, errors) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_signal_after_the_final_step_ends_with_success(program: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "partial").touch()
    running = program(FINAL.format(partial=str(tmp_path / "partial"), target=str(tmp_path / "target")))
    running.wait_until_ready()
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == "published\n"
    sent = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert time.monotonic() - sent < SECONDS
    assert (tmp_path / "target").exists()


def test_a_final_step_that_fails_lets_the_signal_through(program: Callable[..., Program]) -> None:
    running = program("with supervision.final_step():\n    ready()\n    swallow(0.5)\n    raise OSError('disk full')")
    running.wait_until_ready()
    running.process.send_signal(signal.SIGINT)
    code, _, errors = running.end()
    assert (code, errors) == (130, "interrupted; nothing was left behind\n")


def test_nothing_is_published_after_a_signal_that_was_swallowed(program: Callable[..., Program]) -> None:
    running = program("ready()\nswallow(0.3)\nwith supervision.final_step():\n    print('published')\nswallow(60)")
    running.wait_until_ready()
    running.process.send_signal(signal.SIGINT)
    code, output, _ = running.end()
    assert (code, output) == (130, "")


@pytest.mark.parametrize("way", ["time.sleep(60)", WITH_GIL])
def test_a_limit_ends_the_worker_with_its_message(program: Callable[..., Program], way: str) -> None:
    body = f"with supervision.report_limit('run', 0.3, 'EF881', 'stage fuse took too long'):\n    {way}"
    code, output, errors = program(body, "--json").end()
    assert (code, errors) == (4, "error EF881: stage fuse took too long\n")
    assert json.loads(output) == {
        "error": {"kind": "EnvironmentFault", "code": "EF881", "message": "stage fuse took too long"}
    }


def test_a_limit_that_was_kept_is_forgotten(program: Callable[..., Program]) -> None:
    body = "with supervision.report_limit('run', 0.3, 'EF881', 'too long'):\n    pass\ntime.sleep(1)\nsys.exit(3)"
    assert program(body).end() == (3, "", "")


def test_native_code_that_never_gives_the_gil_back_is_ended(program: Callable[..., Program]) -> None:
    code, _, errors = program(f"supervision.limit_native_calls(3, 'EF881', 'no end')\n{WITH_GIL}").end()
    assert (code, errors) == (4, "error EF881: no end\n")


def test_native_code_that_gives_the_gil_back_is_not(program: Callable[..., Program]) -> None:
    body = "supervision.limit_native_calls(3, 'EF881', 'no end')\nctypes.CDLL(None).sleep(5)"
    assert program(body).end() == (0, "", "")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGKILL, 4, "error EF681: the process was killed, as the kernel does when memory runs out"),
        (signal.SIGSEGV, 1, "the process was ended by SIGSEGV"),
    ],
)
def test_a_worker_that_dies_leaves_nothing(
    program: Callable[..., Program], tmp_path: Path, number: signal.Signals, code: int, words: str
) -> None:
    folder = tmp_path / "staging"
    folder.mkdir()
    running = program(
        f"supervision.removed_at_early_end({str(folder)!r})\nready()\nos.kill(os.getpid(), {int(number)})"
    )
    running.wait_until_ready()
    ended, _, errors = running.end()
    assert ended == code
    assert errors.startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_supervisor_takes_the_worker_along(program: Callable[..., Program]) -> None:
    running = program("ready()\nswallow(60)")
    worker = running.wait_until_ready()
    running.process.kill()
    running.end()
    for _ in range(100):
        if not alive(worker):
            break
        time.sleep(0.05)
    assert not alive(worker)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 141])
def test_the_workers_exit_code_is_passed_on(program: Callable[..., Program], code: int) -> None:
    assert program(f"sys.exit({code})").end() == (code, "", "")


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As ``nohup`` has it."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + "ready()\ntime.sleep(0.5)\nsys.exit(3)"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 3


def test_a_library_is_left_alone() -> None:
    code = """
import os, signal, sys
from edgeformer import supervision
try:
    with supervision.final_step(), supervision.temporary("x"), supervision.report_limit("run", 0.0, "EF881", "no"):
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
except KeyboardInterrupt:
    sys.exit(supervision.interrupted() is None)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 1
