"""What other processes take, round by round."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeformer.latency.load import LoadMeter, busy_seconds, limit_cores
from tests.latency.doubles import Machine


@pytest.mark.parametrize(("cores", "limit"), [(1, 0.1), (2, 0.2), (4, 0.4), (8, 0.5), (128, 0.5)])
def test_the_limit(cores: int, limit: float) -> None:
    assert limit_cores(cores) == pytest.approx(limit)


def test_rounds_under_load_are_told_from_quiet_ones() -> None:
    machine = Machine()
    busy = 0.0
    meter = LoadMeter(clock=machine.clock, busy=lambda: busy, own=lambda: machine.now, cores=2)
    meter.start()
    for others in (0.0, 0.0, 1.0, 0.1, 0.0):
        for _ in range(2):  # two rounds are a window of half a second
            machine.now += 0.3
            busy += 0.3 * (1 + others)
            meter.round_ended()
    busy = machine.now
    assert meter.disturbed() == [False] * 4 + [True] * 2 + [False] * 4
    found = meter.figures()
    assert (found.rounds, found.disturbed, found.of_cores, found.limit_cores) == (10, 2, 2, 0.2)


def test_the_mean_of_the_others() -> None:
    machine = Machine()
    machine.others = 0.75
    meter = machine.load_meter()
    machine.now += 1000  # what came before is not counted
    meter.start()
    for _ in range(7):
        machine.now += 0.2
        meter.round_ended()
    # The last round alone is too short to be judged: as those before it.
    assert meter.disturbed() == [True] * 7
    assert meter.figures().cores == pytest.approx(0.75)


def test_short_runs_are_judged_as_a_whole() -> None:
    machine = Machine()
    machine.others = 1.0
    meter = machine.load_meter()
    meter.start()
    for _ in range(3):
        machine.now += 0.01
        meter.round_ended()
    assert meter.disturbed() == [True] * 3


def test_the_kernels_account(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 4000 500 6 7 8 900 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
    assert busy_seconds(stat) == pytest.approx(1.71)  # neither idle, nor waiting, nor guests, which are in `user`
    for text in ("", "cpu\n", "cpu  a b c\n"):
        stat.write_text(text)
        assert busy_seconds(stat) is None
    assert busy_seconds(tmp_path / "no") is None


def test_where_the_kernel_does_not_tell_nobody_disturbs() -> None:
    machine = Machine()
    meter = LoadMeter(clock=machine.clock, busy=lambda: None, own=lambda: 0.0, cores=2)
    machine.now += 1
    meter.round_ended()
    assert (meter.disturbed(), meter.figures().cores) == ([False], 0.0)


def test_this_machines_load_is_seen() -> None:
    meter = LoadMeter()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(0.3)
        meter.start()
        time.sleep(1.0)
        meter.round_ended()
        busy.kill()
    assert meter.figures().cores > 0.4
    assert meter.disturbed() == [True]
