"""The process that waits for the one that works, passes signals on to it, and cleans up if it has to be ended.

Imports nothing but the standard library, and little of that: it is the first thing that the command line does, and what
is signalled before it is installed ends the interpreter as any Python program.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeformer import supervision

__all__ = ["supervise"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal hung up"}
# How long the worker may clean up by itself, in seconds.
_GRACE = 1.0
# How long it may take to make its result visible; a file system that hangs must not keep us.
_FINAL_GRACE = 60.0
_TICK = 0.25
# Exit codes with which the worker ends when it is done or has said what is wrong.
_OWN_CODES = (0, 2, 3, 4)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"


def supervise() -> None:
    """Fork: returns in the child, which does the work. The parent leaves the interpreter with the child's exit code."""
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    worker = os.fork()
    if worker == 0:
        ours.close()
        # Killed, the parent can pass nothing on: the worker goes with it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        supervision.watch_for(theirs, numbers)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        return
    theirs.close()
    code = 1
    try:
        code = _Supervisor(worker, ours, numbers).run()
    finally:
        os._exit(code)


class _Supervisor:
    """Waits for the worker.

    Its clock stands still while this process is stopped (Ctrl-Z): the worker is stopped, too, then.
    """

    def __init__(self, worker: int, channel: socket.socket, numbers: list[signal.Signals]) -> None:
        self._worker = worker
        self._channel = channel
        self._status: int | None = None
        self._clock = 0.0
        self._temporary: set[str] = set()
        # Folders that the worker made for its results.
        self._made: set[str] = set()
        # By name: the clock's time at which it is over, the error's code and message.
        self._limits: dict[str, tuple[float, str, str]] = {}
        self._native: tuple[float, str, str] | None = None
        self._beat = 0.0
        self._signal: signal.Signals | None = None
        self._expired: tuple[str, str] | None = None
        self._deadline: float | None = None
        self._killed = False
        self._finishing = False
        self._finished = False
        channel.setblocking(False)
        self._woken, wake = os.pipe()
        for descriptor in (self._woken, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (*numbers, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        # Whatever the worker started becomes our child when the worker is gone.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> int:
        """Wait for the worker's end; the exit code."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        before = time.monotonic()
        while self._status is None:
            poll.poll(_TICK * 1000)
            now = time.monotonic()
            self._clock += min(now - before, 2 * _TICK)
            before = now
            if not self._take_messages():
                poll = select.poll()
                poll.register(self._woken, select.POLLIN)
            self._take_signals()
            self._check_limits()
            if self._deadline is not None and self._clock >= self._deadline and not self._killed:
                self._end_worker()
            self._reap()
        self._take_messages()
        if self._killed or self._signal is not None or os.WIFSIGNALED(self._status):
            self._clean_up()
        return self._verdict()

    def _take_messages(self) -> bool:
        """Read what the worker sent; False when it will send no more."""
        while True:
            try:
                message = self._channel.recv(1 << 17)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            self._take(json.loads(message))

    def _take(self, message: list[Any]) -> None:
        kind, *rest = message
        self._beat = self._clock
        if kind == "temporary":
            self._temporary.add(rest[0])
        elif kind == "kept":
            self._temporary.discard(rest[0])
        elif kind == "made":
            self._made.add(rest[0])
        elif kind == "used":
            self._made.discard(rest[0])
        elif kind == "limit":
            name, seconds, code, text = rest
            self._limits[name] = (self._clock + seconds, code, text)
        elif kind == "unlimited":
            self._limits.pop(rest[0], None)
        elif kind == "native":
            self._native = (rest[0], rest[1], rest[2])
        elif kind == "ask":
            self._finishing = self._deadline is None
            with suppress(OSError):
                self._channel.send(b"y" if self._finishing else b"n")
        elif kind in ("done", "undone"):
            self._finished |= kind == "done"
            self._finishing = False

    def _take_signals(self) -> None:
        try:
            numbers = os.read(self._woken, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGCHLD or number not in _WORDS:
                continue
            if self._signal is not None:
                self._deadline = self._clock
                continue
            self._signal = signal.Signals(number)
            self._deadline = self._clock + _GRACE
            with suppress(ProcessLookupError):
                os.kill(self._worker, number)

    def _check_limits(self) -> None:
        if self._deadline is not None or self._finishing:
            return
        over = [(code, text) for end, code, text in self._limits.values() if self._clock >= end]
        if self._native is not None and self._clock >= self._beat + self._native[0]:
            over.append(self._native[1:])
        if over:
            self._expired, self._deadline = over[0], self._clock

    def _end_worker(self) -> None:
        # It asks before its last step and is told no from now on; in the middle of it, it is left alone.
        assert self._deadline is not None
        if self._finishing and self._clock < self._deadline + _FINAL_GRACE:
            return
        self._killed = True
        with suppress(ProcessLookupError):
            os.kill(self._worker, signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._worker:
                    self._status = status

    def _clean_up(self) -> None:
        """End whatever the worker started, and remove what it had not finished."""
        while children := _children():
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in children:
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        for path in self._temporary:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(path)
        for folder in sorted(self._made, key=len, reverse=True):  # the inner ones first
            with suppress(OSError):
                os.rmdir(folder)

    def _verdict(self) -> int:
        """Say what ended the worker where it could not say so itself; the exit code."""
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        if self._finished and (self._killed or (self._signal is not None and code not in _OWN_CODES)):
            return 0
        if self._expired is not None and self._killed:
            _say_error(*self._expired)
            return 4
        if self._signal is not None:
            if code in _OWN_CODES and not self._killed:
                return code
            _say(f"{_WORDS[self._signal]}; nothing was left behind", self._killed)
            return 128 + self._signal
        if code >= 0:
            return code
        ended = signal.Signals(-code)
        if ended == signal.SIGKILL:
            _say_error(
                "EF681",
                "the process was killed, as the kernel does when memory runs out; nothing was left behind. "
                "Use smaller batches or images, or a machine with more memory",
            )
            return 4
        if ended in _WORDS:
            return 128 + ended
        _say(
            f"the process was ended by {ended.name}: a fault of edgeformer or of a library that it uses. Report it",
            True,
        )
        return 1


def _children() -> list[int]:
    """The processes whose parent this one is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                # The name, in parentheses, may hold anything; after it come the state and the parent.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


def _say(text: str, killed: bool) -> None:
    with suppress(OSError, ValueError):
        # A worker that was killed while it drew its progress has left the line and the cursor as they were.
        sys.stderr.write((_SHOW_CURSOR if killed and sys.stderr.isatty() else "") + text + "\n")
        sys.stderr.flush()


def _say_error(code: str, text: str) -> None:
    if "--json" in sys.argv[1:]:
        error = {"kind": "EnvironmentFault", "code": code, "message": text}
        with suppress(OSError, ValueError):
            sys.stdout.write(json.dumps({"error": error}, indent=2) + "\n")
            sys.stdout.flush()
    _say(f"error {code}: {text}", True)
