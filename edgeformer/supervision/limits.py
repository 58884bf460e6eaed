"""How long a step of work may take before it is taken for one that never ends.

Limits are for single steps (one run of one batch, the loading of one model) and not for whole stages: a calibration of
a large model on a thousand images may take hours, and an endless loop in a graph is found at its first run all the
same. A step's limit grows with its size, so that a small graph is stopped within a minute and a large one has all the
time it needs on a slow machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.supervision import limit_native_calls, report_limit

__all__ = ["Step", "limited", "seconds_for", "stage", "time_limit"]

Step = Literal["run", "load", "native", "export", "engine", "timed engine"]


class _Limit(NamedTuple):
    """The limit of one kind of step.

    Attributes:
        seconds: for the smallest.
        per_second: units of work for which each further second is given; what a unit is stands beside the number.
    """

    seconds: float
    per_second: float = float("inf")


_LIMITS: dict[Step, _Limit] = {
    # Unit: a weight and an element of the input. A layer applies each of its weights at most once to each position of
    # the image, so this is above the multiply-adds of any network that does not enlarge its input. BiFormer-B has 57
    # million weights: 480 s for one image of 512 x 512. A graph of a megabyte has its 30 s.
    "run": _Limit(30.0, 1e11),
    # Unit: a weight, on which ONNX Runtime's optimizations may work. 97 s for BiFormer-B.
    "load": _Limit(40.0, 1e6),
    # Native code that keeps the interpreter to itself: onnx's shape inference, which is given no large weights, its
    # checker, and protobuf's reading and writing of at most 2 GiB.
    "native": _Limit(45.0),
    # PyTorch traces every layer in Python: BiFormer-B's stage `export` takes a minute (docs/build_time.md).
    "export": _Limit(3600.0),
    # TensorRT-RTX compiles without a GPU and times nothing: ten seconds for BiFormer-B (docs/build_time.md).
    "engine": _Limit(3600.0),
    # TensorRT times every kernel on the device; on a Jetson that takes hours.
    "timed engine": _Limit(6 * 3600.0),
}
# However large a model says it is.
_LONGEST = 24 * 3600.0
# After its limit a step has this long, in seconds, to notice that it was told to stop.
_TO_STOP = 3.0

_given: float | None = None
_stage = ""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, no single step of work may take longer: a model's run on one batch, its loading, an engine's build.

    It takes the place of limits that fit all but very large models and slow machines. They are there for graphs that
    never end; give a longer one where a step is stopped that would have ended.

    Args:
        seconds: the limit of each step, in seconds, above 0.

    Raises:
        InputError: it is not above 0.
    """
    global _given
    if not seconds > 0:
        raise InputError("EF101", f"a time limit of {seconds} s: it must be above 0")
    before, _given = _given, seconds
    _announce()
    try:
        yield
    finally:
        _given = before
        _announce()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Within it, messages name this stage."""
    global _stage
    before, _stage = _stage, name
    _announce()
    try:
        yield
    finally:
        _stage = before
        _announce()


def seconds_for(step: Step, work: float = 0.0) -> float:
    """The limit of a step, in seconds.

    Args:
        step: its kind.
        work: its size, in the kind's unit.
    """
    limit = _LIMITS[step]
    return min(limit.seconds + work / limit.per_second if _given is None else _given, _LONGEST)


@contextmanager
def limited(step: Step, what: str, *, work: float = 0.0, stop: Callable[[], object] | None = None) -> Iterator[None]:
    """Within it, a step has its limit.

    Args:
        step: its kind.
        what: what takes the time, for the message.
        work: its size, in the kind's unit.
        stop: called in another thread at the limit; the step should then end, by an exception or not. On the command
            line, a step that does not is ended with its process; in a program that uses the library it goes on.

    Raises:
        EnvironmentFault: the step failed after its limit.
    """
    seconds = seconds_for(step, work)
    message = _message(what, seconds)
    over = threading.Event()

    def end() -> None:
        over.set()
        if stop is not None:
            stop()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    with report_limit(step, seconds + (_TO_STOP if stop is not None else 0.0), "EF881", message):
        if stop is not None:
            timer.start()
        try:
            yield
        except Exception as error:
            if over.is_set():
                raise EnvironmentFault("EF881", message) from error
            raise
        finally:
            timer.cancel()


def _announce() -> None:
    seconds = seconds_for("native")
    limit_native_calls(seconds, "EF881", _message("a call of onnx or another library", seconds))


def _message(what: str, seconds: float) -> str:
    where = f"stage {_stage}: " if _stage else ""
    return (
        f"{where}{what} took longer than {round(seconds, 1):g} s and was stopped. Look for an endless or very long "
        "loop in the model; if it only needs more time here, give --timeout SECONDS (in Python: edgeformer.time_limit)"
    )
