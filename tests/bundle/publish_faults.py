"""Publish over and over; each time a later call fails, or the process dies at it. Prints how each time ended, as JSON.

    python -m tests.bundle.publish_faults FOLDER ERRNO|killed exchange|rename

A program of its own, since it forks: a worker of pytest has threads, and a lock that one of them holds at that moment
is never given back in the child.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeformer.bundle import StageRecord, open_bundle, staging
from edgeformer.errors import InputError
from tests.bundle.test_publish import make_manifest

OS_CALLS = ["open", "rename", "replace", "link", "symlink", "fsync", "mkdir", "unlink", "rmdir", "chmod", "listdir"]
# Python 3.10's pathlib has the functions of os that it found when it was imported.
PATHLIB = getattr(pathlib, "_normal_accessor", None)
CALLS: list[tuple[Any, str]] = [(place, name) for place in (os, PATHLIB) for name in OS_CALLS if hasattr(place, name)]
# What these write is half there when they fail.
WRITES: list[tuple[Any, str]] = [(Path, "write_text"), (Path, "write_bytes")]
# How the child that publishes ends: as if nothing was, published in spite of the fault, not published, at the fault.
UNHARMED, PUBLISHED, REFUSED, KILLED, STRANGE = 0, 1, 2, 9, 3


def publish(target: Path, content: str) -> None:
    with staging(target) as work:
        assert work.reusable("kept", "k") is not None or content == "one"
        if content == "one":
            (work.path / "b.txt").write_text("kept")
        (work.path / "a.txt").write_text(content)
        stages = [
            StageRecord(name="kept", key="k", seconds=1, files=["b.txt"]),
            StageRecord(name="new", key=content, seconds=1, files=["a.txt"]),
        ]
        work.publish(make_manifest(work, stages))


class Failing:
    """Functions that together work ``calls`` times; the call after that fails with ``fault``, or is the end."""

    def __init__(self, calls: int, fault: int | None) -> None:
        self.left = calls
        self._fault = fault
        for place, name in CALLS + WRITES:
            setattr(place, name, self._wrapped(getattr(place, name), (place, name) in WRITES))

    def _wrapped(self, function: Callable[..., Any], writes: bool) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            self.left -= 1
            if self.left == -1:
                if writes:
                    path, content = arguments
                    function(path, content[: len(content) // 2])
                if self._fault is None:
                    os._exit(KILLED)
                raise OSError(self._fault, os.strerror(self._fault))
            return function(*arguments, **keywords)

        return wrapped


def child(target: Path, calls: int, fault: int | None, exchange: bool) -> int:
    """Publish in a process of its own, in which one call fails; how it ended."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = STRANGE
    try:
        if not exchange:
            ctypes.CDLL = lambda *_, **__: object()  # type: ignore[misc,assignment]
        failing = Failing(calls, fault)
        try:
            publish(target, "two")
        except (OSError, InputError):
            code = REFUSED
        else:
            code = PUBLISHED if failing.left < 0 else UNHARMED
    finally:
        os._exit(code)


def publish_until_unharmed(folder: Path, fault: int | None, exchange: bool) -> list[int]:
    """How each publishing ended, the first that no fault reached last; checks what it left behind each time."""
    ends: list[int] = []
    while not ends or ends[-1] != UNHARMED:
        place = folder / str(len(ends))
        target = place / "bundle"
        publish(target, "one")
        (target / "notes").mkdir()
        (target / "notes" / "precious.txt").write_text("mine")
        calls = len(ends)
        ends.append(child(target, calls, fault, exchange))
        aside = [] if target.exists() else list(place.glob(".bundle.staging-*.older"))
        whole = aside[0] if aside else target
        assert open_bundle(whole).stages[1].key in ("one", "two"), calls
        assert (whole / "notes" / "precious.txt").read_text() == "mine"
        publish(target, "three")
        assert open_bundle(target).stages[1].key == "three"
        assert (target / "notes" / "precious.txt").read_text() == "mine"
        assert [entry.name for entry in place.iterdir()] == ["bundle"], calls
        assert calls < 1000
    return ends


def main() -> None:
    folder, fault, way = sys.argv[1:]
    assert threading.active_count() == 1
    ends = publish_until_unharmed(Path(folder), None if fault == "killed" else int(fault), way == "exchange")
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
