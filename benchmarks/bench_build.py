#!/usr/bin/env python3
"""Measure what `edgeformer build --precision int8` takes, stage by stage: time, CPU time and memory.

Prints the table of docs/build_time.md; no GPU is needed. Run it in the environment that scripts/setup made, on a
machine that does nothing else. The models have random weights, which cost what trained ones do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

import edgeformer as ef
from edgeformer.bundle import StageRecord
from edgeformer.errors import EdgeformerError
from edgeformer.pipeline import Observer

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("biformer_tiny", "biformer_small", "biformer_base")
WHOLE = "whole build"
# Seconds between two looks at the memory; a look takes about a millisecond.
INTERVAL = 0.05
LIBRARIES = ("torch", "onnxruntime", "tensorrt-rtx")


@dataclass(frozen=True)
class Span:
    """A stage as the process that builds sees it.

    Attributes:
        name: the stage's.
        begun: moment of the monotonic clock, which all processes share, seconds.
        ended: moment of the same clock, seconds.
        cpu_seconds: what this process and those that it started and waited for took.
    """

    name: str
    begun: float
    ended: float
    cpu_seconds: float


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Attributes:
        stage: its name, or `WHOLE`.
        seconds: on the clock.
        cpu_seconds: of all threads and processes.
        peak_bytes: most memory resident at once, that of the processes it started included.
    """

    stage: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Stopwatch(Observer):
    """Notes when stages begin and end; a stage that is skipped has no span."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._start: tuple[float, float] | None = None

    def started(self, stage: str) -> None:
        self._start = time.monotonic(), cpu_seconds()

    def finished(self, record: StageRecord) -> None:
        if self._start is not None:
            self.spans.append(span_since(record.name, *self._start))
            self._start = None


def cpu_seconds() -> float:
    """CPU time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def span_since(name: str, begun: float, cpu_before: float) -> Span:
    return Span(name, begun, time.monotonic(), cpu_seconds() - cpu_before)


def build(model: str, target: str, data: Path, images: int, sender: Connection) -> None:
    """Build the model into a folder that is thrown away and send the spans: the body of a process of its own."""
    stopwatch = Stopwatch()
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        try:
            ef.build(
                model,
                output=Path(folder) / "bundle",
                target=target,
                precision="int8",
                random_weights=True,
                data=data,
                calibration_images=images,
                observer=stopwatch,
            )
        except EdgeformerError as error:
            print(f"error: {model}: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        sender.send([*stopwatch.spans, span_since(WHOLE, begun, before)])


def measure(model: str, target: str, data: Path, images: int) -> list[Cost]:
    """What each stage of a build took, and the whole of it.

    The memory is looked at from here, beside the process that builds: a thread in that one would have to wait for the
    interpreter's lock wherever the most memory is taken.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=build, args=(model, target, data, images, sender))
    process.start()
    sender.close()  # the other end is the process's alone: without it nothing is to come
    watched = psutil.Process(process.pid)
    samples = []
    while not receiver.poll(INTERVAL):
        samples.append((time.monotonic(), resident_bytes(watched)))
    try:
        spans: list[Span] = receiver.recv()
    except EOFError:
        process.join()
        sys.exit(process.exitcode or 1)
    process.join()
    return [
        Cost(span.name, span.ended - span.begun, span.cpu_seconds, peak_bytes(samples, span.begun, span.ended))
        for span in spans
    ]


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and of its descendants; pages that they share count for each of them."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total


def peak_bytes(samples: Sequence[tuple[float, int]], begun: float, ended: float) -> int:
    """The most of the samples between two moments; where there are none, the nearest to the first moment."""
    inside = [size for moment, size in samples if begun <= moment <= ended]
    return max(inside) if inside else min(samples, key=lambda sample: abs(sample[0] - begun))[1]


def table(costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| model | stage | time | CPU time | peak memory |"
    yield "|---|---|---|---|---|"
    for model, stages in costs.items():
        for cost in stages:
            peak = f"{cost.peak_bytes / 1e6:,.0f} MB"
            yield f"| {model} | {cost.stage} | {cost.seconds:.1f} s | {cost.cpu_seconds:.1f} s | {peak} |"


def machine() -> dict[str, Any]:
    """What decides about the figures, and which versions they are of."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": {"edgeformer": ef.__version__} | {name: version(name) for name in LIBRARIES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="registry names (default: %(default)s)")
    parser.add_argument("--target", default="rtx-40", help="machine to build for (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / "calibration" / "digits" / "calibrate")
    parser.add_argument("--images", type=int, default=200, help="calibrate on at most this many (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()

    where = machine()
    costs = {}
    for model in options.models:
        print(f"building {model} ...", file=sys.stderr)
        costs[model] = measure(model, options.target, options.data, options.images)
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    print(f"{where['cpu']}, {where['cores']} cores, {where['memory_bytes'] / 1e9:.0f} GB; {versions}\n")
    print("\n".join(table(costs)))
    if options.json is not None:
        written = {
            "machine": where,
            "target": options.target,
            "images": options.images,
            "builds": {model: [asdict(cost) for cost in stages] for model, stages in costs.items()},
        }
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
