#!/usr/bin/env python3
"""Hold the verdicts of `edgeformer bench` to what was planted, on ONNX Runtime.

    python -m benchmarks.verdict_calibration.run [--runs 50] [--seconds 0.5] [--model BUNDLE|ONNX] [--json]

Each run loads the same model three times: the reference, the control (the run's own noise) and the candidate, which is
slower by 0, 5 or 1 %. Then runs under the load of a process on each processor, and runs that are too short. What it has
to reach: of 50 runs of equals at most one "faster" or "slower"; 5 % found in 48; 1 % called at most twice; nothing
decided under load or with too few samples. It needs a machine that does nothing else; the exit code is 1 where it
misses one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnxruntime

import edgeformer as ef
from benchmarks.verdict_calibration.subjects import Slowed, load, write_graph
from edgeformer.latency import HostRunner, Runner, Subject, compare
from edgeformer.latency.measuring import Measured
from edgeformer.latency.runners import default_batch

# Of 50 runs; in proportion where there are more or fewer.
_OF = 50
_MOST_WRONG_AMONG_EQUALS = 1
_FEWEST_FOUND = 48
_MOST_CALLED = 2


@dataclass
class Outcome:
    """What the runs of one kind gave.

    Attributes:
        kind: what was planted.
        goal: what the verdicts have to reach, in words.
        passed: whether they do.
        verdicts: of the medians, end to end: how often each.
        p99: the same of p99.
        ratios: candidate over reference, run by run.
        limits: what the intervals had to be beyond, run by run.
        reasons: why nothing was decided, each with how often.
    """

    kind: str
    goal: str
    passed: bool = False
    verdicts: dict[str, int] = field(default_factory=dict)
    p99: dict[str, int] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)


def measured(path: Path, fraction: float, seconds: float, threads: int) -> Measured:
    """One run: the reference, the candidate, and the control, each loaded anew."""
    with ExitStack() as stack:
        models = [stack.enter_context(ef.load(path, backend="onnxruntime", threads=threads)) for _ in range(3)]
        batch = default_batch(models[0].describe())
        runners: list[Runner] = [HostRunner(model, batch) for model in models]
        if fraction:
            runners[1] = Slowed(runners[1], fraction)
        return compare(
            [
                Subject("reference", runners[0], batch),
                Subject("candidate", runners[1], batch),
                Subject("control", runners[2], batch, kind="control"),
            ],
            seconds=seconds,
        )


def outcome(kind: str, goal: str, runs: Iterator[Measured], judge: Callable[[Counter[str], int], bool]) -> Outcome:
    """The verdicts of some runs, held to their goal."""
    found = Outcome(kind, goal)
    verdicts: Counter[str] = Counter()
    p99: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for one in runs:
        for comparison in one.comparisons:
            if comparison.statistic == "p99":
                p99[comparison.verdict] += 1
                continue
            verdicts[comparison.verdict] += 1
            if comparison.ratio is not None and comparison.low is not None and comparison.high is not None:
                found.ratios.append(comparison.ratio)
                found.limits.append(comparison.limit)
                found.intervals.append((comparison.low, comparison.high))
            if comparison.reason:
                reasons[comparison.reason.partition(",")[0].partition(":")[0]] += 1
    found.verdicts, found.p99, found.reasons = dict(verdicts), dict(p99), dict(reasons)
    found.passed = judge(verdicts, sum(verdicts.values()))
    return found


def called(verdicts: Counter[str]) -> int:
    """How often one was said to be faster or slower."""
    return verdicts["faster"] + verdicts["slower"]


def calibrate(
    path: Path, *, runs: int, seconds: float, threads: int, refusals: int, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Everything that was promised, kind by kind.

    Args:
        path: the model.
        runs: of each size of slow-down.
        seconds: of timed runs for each of the three.
        threads: of ONNX Runtime.
        refusals: runs of each kind that must not be decided.
        tell: is given each outcome.
    """
    share = runs / _OF

    def planted(fraction: float, count: int, for_seconds: float = seconds, busy: int = 0) -> Iterator[Measured]:
        for _ in range(count):
            with load(busy) if busy else nullcontext():
                yield measured(path, fraction, for_seconds, threads)

    cores = os.cpu_count() or 1
    nothing = "never decided"
    kinds: list[tuple[str, str, Iterator[Measured], Callable[[Counter[str], int], bool]]] = [
        (
            "equals",
            f"at most {_MOST_WRONG_AMONG_EQUALS} of {_OF} called faster or slower",
            planted(0, runs),
            lambda verdicts, _: called(verdicts) <= max(1, _MOST_WRONG_AMONG_EQUALS * share),
        ),
        (
            "5 % slower",
            f"slower in {_FEWEST_FOUND} of {_OF}",
            planted(0.05, runs),
            lambda verdicts, count: verdicts["slower"] >= int(count * _FEWEST_FOUND / _OF),
        ),
        (
            "1 % slower",
            f"at most {_MOST_CALLED} of {_OF} called faster or slower",
            planted(0.01, runs),
            lambda verdicts, _: called(verdicts) <= max(1, _MOST_CALLED * share),
        ),
        (
            "10 % slower under load",
            nothing,
            planted(0.1, refusals, busy=cores),
            lambda verdicts, count: verdicts["not decided"] == count,
        ),
        (
            "10 % slower, too few samples",
            nothing,
            planted(0.1, refusals, for_seconds=seconds / 100),
            lambda verdicts, count: verdicts["not decided"] == count,
        ),
    ]
    found = []
    for kind, goal, made, judge in kinds:
        found.append(outcome(kind, goal, made, judge))
        tell(found[-1])
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=_OF, help="of each size of slow-down")
    parser.add_argument("--refusals", type=int, default=8, help="runs that must not be decided, of each kind")
    parser.add_argument("--seconds", type=float, default=0.5, help="of timed runs for each of the three models")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, help="a bundle or an ONNX file; default: a graph made by code")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    began = time.perf_counter()

    def tell(one: Outcome) -> None:
        if not options.json:
            print(f"{one.kind}: {one.verdicts}; goal: {one.goal}: {'reached' if one.passed else 'MISSED'}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = options.model or write_graph(Path(folder, "convolutions.onnx"))
        outcomes = calibrate(
            path,
            runs=options.runs,
            seconds=options.seconds,
            threads=options.threads,
            refusals=options.refusals,
            tell=tell,
        )
    seconds = time.perf_counter() - began
    if options.json:
        document = {
            "onnxruntime": onnxruntime.__version__,
            "runs": options.runs,
            "seconds_each": options.seconds,
            "took_seconds": round(seconds, 1),
            "outcomes": [asdict(one) for one in outcomes],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{seconds:.0f} s")
    sys.exit(not all(one.passed for one in outcomes))


if __name__ == "__main__":
    main()
