"""Runs models in turns: each is warmed up, then blocks of runs follow each other as A B B A."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeformer.latency.load import LoadMeter
from edgeformer.latency.machine import StateMeter
from edgeformer.latency.runners import Runner, Times
from edgeformer.progress import Progress
from edgeformer.records.latency import LoadFigures, Timing, WarmUp

__all__ = ["Run", "Series", "Turn", "sample", "warm_up"]

Clock = Callable[[], float]

# The last fifth of the warm-up drifts by less than this.
_DRIFT = 0.01
_LAST = 0.2
_FEWEST_WARM_RUNS = 20
_LEAST_WARM_SECONDS = 0.5
# Rounds that a run is cut into; of longer runs the blocks are longer.
_ROUNDS = 40


@dataclass
class Turn:
    """One that takes turns.

    Attributes:
        runner: what is run.
        images: of a run.
        meter: reads the machine's state while it runs.
    """

    runner: Runner
    images: int
    meter: StateMeter


@dataclass
class Series:
    """What was measured of one.

    Attributes:
        warm_up: what was run before.
        blocks: two a round, in the order of time.
    """

    warm_up: WarmUp
    blocks: list[list[Times]] = field(default_factory=list)

    def seconds(self, timing: Timing) -> list[NDArray[np.float64]] | None:
        """The times of each block; None where they were not measured."""
        if timing == "end_to_end":
            return [np.array([one.end - one.start for one in block]) for block in self.blocks]
        found = [[one.gpu.compute for one in block if one.gpu is not None] for block in self.blocks]
        return [np.array(block) for block in found] if all(found) else None


@dataclass
class Run:
    """What was measured of all.

    Attributes:
        series: of each, in their order.
        disturbed: for each round whether other processes took too much of the processors.
        load: what they took.
    """

    series: list[Series]
    disturbed: list[bool]
    load: LoadFigures


def warm_up(runner: Runner, most_seconds: float, clock: Clock = time.perf_counter) -> tuple[WarmUp, float]:
    """Run until the last fifth of the runs drifts by less than 1 %.

    Args:
        runner: what is run.
        most_seconds: when to stop all the same.
        clock: seconds.

    Returns:
        What was run, and the median of the last fifth's runs, in seconds.
    """
    times: list[float] = []
    look_at = _FEWEST_WARM_RUNS
    began = clock()
    while True:
        one = runner.run()
        times.append(one.end - one.start)
        seconds = clock() - began
        # To look after each run would take longer than short runs do.
        if seconds < most_seconds and (len(times) < look_at or seconds < _LEAST_WARM_SECONDS):
            continue
        look_at = len(times) + 1 + len(times) // 20
        last = times[-max(2, int(_LAST * len(times))) :]
        half = len(last) // 2
        earlier, later = (float(np.median(part)) for part in (last[:half] or last, last[half:]))
        # Between the middles of two halves there is half of the way.
        drift = 2 * abs(later / earlier - 1) if earlier else 0.0
        settled = len(times) >= _FEWEST_WARM_RUNS and drift < _DRIFT
        if settled or seconds >= most_seconds:
            found = WarmUp(runs=len(times), seconds=round(seconds, 3), drift=round(drift, 5), settled=settled)
            return found, float(np.median(last))


def sample(
    turns: Sequence[Turn],
    seconds: float,
    *,
    load: LoadMeter | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
    most_rounds: int = _ROUNDS,
) -> Run:
    """Warm up, and run blocks in turns.

    A round gives each two blocks, in an order that is drawn anew for each round and then reversed: what drifts evenly
    falls on all alike, and nobody has always the same neighbour. The first run of a block, in caches that another left,
    is not timed.

    Args:
        turns: who takes turns, one at least.
        seconds: of timed blocks, for each.
        load: tells what other processes take.
        clock: seconds.
        progress: called after each round.
        most_rounds: rounds at most; slow models have fewer.
    """
    load = load or LoadMeter()
    warmed = [warm_up(turn.runner, max(2.0, seconds), clock) for turn in turns]
    medians = [median for _, median in warmed]
    rounds = max(1, min(most_rounds, int(seconds / (2 * max(medians)))))
    calls = [max(1, round(seconds / (2 * rounds * median))) for median in medians]
    series = [Series(found) for found, _ in warmed]
    order = np.random.default_rng(0)
    with _without_garbage_collection():
        load.start()
        for done in range(rounds):
            drawn = [int(index) for index in order.permutation(len(turns))]
            for index in (*drawn, *reversed(drawn)):
                series[index].blocks.append(_block(turns[index], calls[index], clock))
            load.round_ended()
            if progress is not None:
                progress("rounds", done + 1, rounds)
    return Run(series, load.disturbed(), load.figures())


def _block(turn: Turn, calls: int, clock: Clock) -> list[Times]:
    run, meter = turn.runner.run, turn.meter
    run()
    meter.begin(clock)
    times = []
    for _ in range(calls):
        times.append(run())
        meter.between()
    meter.end(calls * turn.images)
    return times


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
