"""What a process tells the one that watches it: what to remove should it end early, and how long it may take.

The command line works in a child process; its parent (`edgeformer.supervision.supervisor`) waits. Signals reach the
child as exceptions, as everywhere in Python, but an exception can be lost: a library may catch all of them around an
import, an interpreter drops those that are raised in a callback, and none is raised at all while native code runs. What
the child then leaves undone is done by its parent, which runs no code but its own.

Without a parent, in a program that uses edgeformer as a library, all of this does nothing: Python's own handlers apply.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = [
    "Interrupted",
    "final_step",
    "interrupted",
    "limit_native_calls",
    "removed_at_early_end",
    "removed_if_empty",
    "report_limit",
    "temporary",
    "watch_for",
]

_BEAT_SECONDS = 2.0


class Interrupted(SystemExit):
    """A signal ended the process; raised in the main thread of the command line's process."""


class _Child:
    """The watched process's side.

    Attributes:
        received: the signal that ends this process, once one came.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.received: signal.Signals | None = None
        self._channel = channel
        self._final = False

    def send(self, *message: Any) -> None:
        with suppress(OSError):  # the parent is gone, and this process is about to go, too
            self._channel.send(json.dumps(message).encode())

    def handle(self, number: int, _frame: FrameType | None) -> None:
        # A second signal must not disturb the cleaning up after the first; the parent sees to it that this ends.
        if self.received is None:
            self.received = signal.Signals(number)
            if not self._final:
                raise Interrupted(128 + number)

    def beat(self) -> None:
        """Tell the parent now and then that Python runs: native code that keeps the GIL would end that."""
        pause = threading.Event()
        while not pause.wait(_BEAT_SECONDS):
            self.send("beat")

    @contextmanager
    def final_step(self) -> Iterator[None]:
        self._final = True
        done = False
        try:
            if self.received is None:
                self.send("ask")
                answer = b""
                with suppress(OSError):
                    answer = self._channel.recv(1)
                if answer != b"y" and self.received is None:
                    self.received = signal.SIGTERM
            if self.received is not None:
                raise Interrupted(128 + self.received)
            yield
            done = True
        finally:
            self._final = False
            self.send("done" if done else "undone")
            if not done and self.received is not None:
                raise Interrupted(128 + self.received)


_child: _Child | None = None
_limits = itertools.count()


def watch_for(channel: socket.socket, numbers: list[signal.Signals]) -> None:
    """Make this process one that its parent watches; called once, in the new process.

    Args:
        channel: leads to the parent.
        numbers: signals that end the process.
    """
    global _child
    _child = child = _Child(channel)
    for number in numbers:
        signal.signal(number, child.handle)

    def silent_after_a_signal(hook: Any) -> Any:
        # Code that was interrupted may fail in any way on its way out; that is nobody's fault.
        return lambda *details: None if child.received else hook(*details)

    sys.excepthook = silent_after_a_signal(sys.excepthook)
    sys.unraisablehook = silent_after_a_signal(sys.unraisablehook)
    threading.excepthook = silent_after_a_signal(threading.excepthook)
    threading.Thread(target=child.beat, name="edgeformer-beat", daemon=True).start()


def interrupted() -> signal.Signals | None:
    """The signal that ends this process; None where none came, or where nobody watches."""
    return None if _child is None else _child.received


def removed_at_early_end(path: str | os.PathLike[str], on: bool = True) -> None:
    """From now on, or no longer, the file or folder ``path`` is removed if this process ends early."""
    if _child is not None:
        _child.send("temporary" if on else "kept", str(Path(path).absolute()))


def removed_if_empty(folder: str | os.PathLike[str], on: bool = True) -> None:
    """From now on, or no longer, ``folder`` is removed if this process ends early and nothing is in it."""
    if _child is not None:
        _child.send("made" if on else "used", str(Path(folder).absolute()))


@contextmanager
def temporary(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within it, the file or folder ``path`` is removed if this process ends early; afterwards it is the caller's."""
    removed_at_early_end(path)
    try:
        yield
    finally:
        removed_at_early_end(path, False)


@contextmanager
def final_step() -> Iterator[None]:
    """The step that makes a command's result visible. It has to be short: signals wait for its end.

    One that came before it prevents it. One that comes after it ends the process with the exit code of success, since
    the result is there.

    Raises:
        Interrupted: a signal came.
    """
    if _child is None:
        yield
        return
    with _child.final_step():
        yield


@contextmanager
def report_limit(name: str, seconds: float, code: str, message: str) -> Iterator[None]:
    """Within it, the parent ends this process with an error once ``seconds`` have gone by.

    Args:
        name: of the limit; a number is added, so that limits of the same name do not meet.
        seconds: time, in seconds, in which the process was not stopped.
        code: the error's code.
        message: what the parent says.
    """
    child = _child
    if child is None:
        yield
        return
    key = f"{name}-{next(_limits)}"
    child.send("limit", key, seconds, code, message)
    try:
        yield
    finally:
        child.send("unlimited", key)


def limit_native_calls(seconds: float, code: str, message: str) -> None:
    """From now on, the parent ends this process with an error when no Python code ran for ``seconds``."""
    if _child is not None:
        _child.send("native", seconds, code, message)
