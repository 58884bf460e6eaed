"""Where a run computes and how it takes times: a CUDA GPU, or, for rehearsals, the CPU and made-up times."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

__all__ = ["Backend", "CudaBackend", "RehearsalBackend", "Sample"]

Call = Callable[[], Any]
_ROUNDS = (7, 200)  # at least, at most
_WARM_UP_US = 10e3  # an idle GPU has a low clock
# A round shorter than this is made of several turns over the inputs: what begins and ends a round is no part of a call.
_ROUND_US = 1e3
_TURNS = 16


@dataclass(frozen=True)
class Sample:
    """Times of one call, microseconds: median, 10th and 90th percentile of so many rounds."""

    median_us: float
    low_us: float
    high_us: float
    rounds: int


class Backend(Protocol):
    """What the steps of a run need from a machine."""

    device: torch.device
    l2_bytes: int
    backend_of_compile: str

    def synchronize(self) -> None:
        """Wait for everything that was enqueued; raises what went wrong on the device."""

    def capture(self, call: Call) -> Call:
        """Record ``call`` into a CUDA graph and give the function that replays it."""

    def free(self) -> None:
        """Give unused memory back, after something that did not fit."""

    def overlap(self, calls: Sequence[Call]) -> None:
        """Run each call on a stream of its own, all at once, and wait."""

    def time(self, calls: Sequence[Call], *, graph: bool, seconds: float) -> Sample:
        """Time rounds over ``calls``, which are equal but for their buffers, for about so many seconds."""


def _percentiles(rounds_us: list[float]) -> Sample:
    ordered = sorted(rounds_us)
    low, high = ordered[len(ordered) // 10], ordered[(9 * len(ordered)) // 10]
    return Sample(statistics.median(ordered), low, high, len(ordered))


class CudaBackend:
    """The current CUDA device."""

    backend_of_compile = "inductor"

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.l2_bytes = int(torch.cuda.get_device_properties(self.device).L2_cache_size)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def capture(self, call: Call) -> Call:
        # Lazy initialization (cuBLAS handles, module loading) must not fall into the capture.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def free(self) -> None:
        torch.cuda.empty_cache()

    def overlap(self, calls: Sequence[Call]) -> None:
        torch.cuda.synchronize()
        streams = [torch.cuda.Stream() for _ in calls]  # type: ignore[no-untyped-call]
        for stream, call in zip(streams, calls, strict=True):
            with torch.cuda.stream(stream):
                call()
        torch.cuda.synchronize()

    def time(self, calls: Sequence[Call], *, graph: bool, seconds: float) -> Sample:
        def turn() -> None:
            for call in calls:
                call()

        turn()
        one = min(self._rounds_us(turn, 2))
        turns = min(max(math.ceil(_ROUND_US / one), 1), _TURNS)

        def all_turns() -> None:
            for _ in range(turns):
                turn()

        run = self.capture(all_turns) if graph else all_turns
        for _ in range(min(max(math.ceil(_WARM_UP_US / (turns * one)), 1), 20)):
            run()
        torch.cuda.synchronize()
        estimate = max(self._rounds_us(run, 2)) * 1e-6
        rounds = min(max(int(seconds / estimate), _ROUNDS[0]), _ROUNDS[1])
        sample = _percentiles([time / (turns * len(calls)) for time in self._rounds_us(run, rounds)])
        torch.cuda.synchronize()
        return sample

    def _rounds_us(self, turn: Call, rounds: int) -> list[float]:
        def event() -> torch.cuda.Event:
            return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

        events = [(event(), event()) for _ in range(rounds)]
        for start, end in events:
            start.record()
            turn()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e3 for start, end in events]


class RehearsalBackend:
    """The CPU. Every call is made once, for real; the times are invented, the same ones in every rehearsal."""

    backend_of_compile = "eager"

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.l2_bytes = 4096
        self._measured = 0

    def synchronize(self) -> None:
        pass

    def capture(self, call: Call) -> Call:
        return call

    def free(self) -> None:
        pass

    def overlap(self, calls: Sequence[Call]) -> None:
        for call in calls:
            call()

    def time(self, calls: Sequence[Call], *, graph: bool, seconds: float) -> Sample:
        calls[0]()
        self._measured += 1
        median = 10.0 + self._measured % 7
        return Sample(median, median - 1.0, median + 1.0, _ROUNDS[0])
