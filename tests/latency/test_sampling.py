"""Warm-up and turns, on a machine whose clock the models move."""

from __future__ import annotations

import gc
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from edgeformer.latency import Times
from edgeformer.latency.machine import StateMeter
from edgeformer.latency.sampling import Turn, sample, warm_up
from tests.latency.doubles import Machine, MachineRunner, SensorsDouble


def turn(runner: Any, images: int = 1) -> Turn:
    return Turn(runner, images, StateMeter(SensorsDouble()))


def test_the_warm_up_ends_when_nothing_drifts_any_more() -> None:
    # Slower at first, and steady after three seconds.
    machine = Machine(slowness=lambda now: max(1.0, 2.0 - (now - 100.0) / 3))
    runner = machine.runner(0.01, noise=0.0)
    found, median = warm_up(runner, 60.0, machine.clock)
    assert found.settled
    assert found.drift < 0.01
    assert found.runs == runner.runs
    assert found.seconds == pytest.approx(machine.now - 100.0, abs=1e-3)
    assert 2.5 < found.seconds < 6
    assert median == pytest.approx(0.01, rel=0.05)


def test_a_warm_up_that_never_settles_ends_in_time() -> None:
    machine = Machine(slowness=lambda now: 1 + (now - 100.0))
    found, _ = warm_up(machine.runner(0.01, noise=0.0), 2.0, machine.clock)
    assert not found.settled
    assert found.drift > 0.01
    assert 2.0 <= found.seconds < 2.1


def test_slow_models_are_warmed_up_by_few_runs() -> None:
    machine = Machine()
    found, median = warm_up(machine.runner(3.0), 2.0, machine.clock)
    assert (found.runs, found.settled) == (1, False)
    assert median == pytest.approx(3.0, rel=0.1)


class Listed(MachineRunner):
    """Notes when it runs."""

    def __init__(self, machine: Machine, seconds: float, name: str, order: list[str]) -> None:
        super().__init__(machine, seconds, 0.0, None)
        self._name, self._order = name, order

    def run(self) -> Times:
        self._order.append(self._name)
        return super().run()


def test_blocks_take_turns() -> None:
    machine, order = Machine(), list[str]()
    runners = [Listed(machine, 0.01, "a", order), Listed(machine, 0.02, "b", order)]
    run = sample([turn(one) for one in runners], 1.2, load=machine.load_meter(), clock=machine.clock, most_rounds=10)
    assert len(run.disturbed) == 10
    assert [len(series.blocks) for series in run.series] == [20, 20]
    # As long for each: 1.2 s in 20 blocks.
    assert {len(block) for block in run.series[0].blocks} == {6}
    assert {len(block) for block in run.series[1].blocks} == {3}
    warm = sum(series.warm_up.runs for series in run.series)
    after = "".join(order[warm:])
    # One run more in each block, which is not timed.
    assert len(after) == 20 * 7 + 20 * 4
    turns = Counter[str]()
    for start in range(0, len(after), 22):
        part = after[start : start + 22]
        turns[
            "ABBA" if part == 7 * "a" + 8 * "b" + 7 * "a" else "BAAB" if part == 4 * "b" + 14 * "a" + 4 * "b" else part
        ] += 1
    assert set(turns) == {"ABBA", "BAAB"}


def test_each_models_neighbours_change() -> None:
    machine, order = Machine(), list[str]()
    runners = [Listed(machine, 0.01, name, order) for name in "abc"]
    run = sample([turn(one) for one in runners], 0.8, load=machine.load_meter(), clock=machine.clock)
    warm = sum(series.warm_up.runs for series in run.series)
    after = order[warm:]
    neighbours = Counter(pairwise(after))
    for name in "abc":
        followed = [neighbours[name, other] for other in "abc" if other != name]
        assert min(followed) > 0.2 * sum(followed)


def test_slow_models_have_fewer_rounds() -> None:
    machine = Machine()
    run = sample([turn(machine.runner(0.5))], 3.2, load=machine.load_meter(), clock=machine.clock)
    assert [len(block) for block in run.series[0].blocks] == [1] * 6
    run = sample([turn(machine.runner(5.0))], 1.0, load=machine.load_meter(), clock=machine.clock)
    assert [len(block) for block in run.series[0].blocks] == [1, 1]


def test_the_times_of_both_kinds() -> None:
    machine = Machine()
    run = sample([turn(machine.runner(0.01, 0.0, gpu_share=0.5))], 0.8, load=machine.load_meter(), clock=machine.clock)
    whole, gpu = run.series[0].seconds("end_to_end"), run.series[0].seconds("gpu")
    assert whole is not None
    assert gpu is not None
    assert [len(block) for block in gpu] == [len(block) for block in whole]
    assert gpu[0] == pytest.approx(0.5 * whole[0])
    without = sample([turn(machine.runner(0.01))], 0.4, load=machine.load_meter(), clock=machine.clock)
    assert without.series[0].seconds("gpu") is None


def test_progress_and_garbage_collection() -> None:
    machine = Machine()
    seen: list[tuple[str, int, int | None]] = []
    enabled = []

    def progress(text: str, done: int, total: int | None) -> None:
        seen.append((text, done, total))
        enabled.append(gc.isenabled())

    sample(
        [turn(machine.runner(0.01))],
        1.0,
        load=machine.load_meter(),
        clock=machine.clock,
        progress=progress,
        most_rounds=3,
    )
    assert seen == [("rounds", 1, 3), ("rounds", 2, 3), ("rounds", 3, 3)]
    assert enabled == [False] * 3
    assert gc.isenabled()


def test_a_model_that_fails_leaves_the_collection_on() -> None:
    machine = Machine()

    class Failing(MachineRunner):
        def run(self) -> Times:
            if not gc.isenabled():
                raise RuntimeError("no")
            return super().run()

    with pytest.raises(RuntimeError, match="no"):
        sample([turn(Failing(machine, 0.01, 0.0, None))], 0.4, load=machine.load_meter(), clock=machine.clock)
    assert gc.isenabled()
