"""Frames that are read while the model runs: a video's ahead of it, of a camera's the newest alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["FrameReader"]

T = TypeVar("T")
# The reader may be inside a camera's driver, where nothing wakes it; it dies with the process.
_PATIENCE_SECONDS = 2.0


class FrameReader(Generic[T]):
    """Reads frames in a thread of its own, while who iterates over this works on the one before.

    Use it as a context manager: the thread ends with the block.

    Attributes:
        dropped: frames that nobody got, since a newer one came.
    """

    def __init__(self, frames: Iterable[T], *, ahead: int = 2, newest_only: bool = False) -> None:
        """Begin to read.

        Args:
            frames: what is read; it is iterated over, and closed, in the thread.
            ahead: frames to hold at most; the reader waits when there are so many.
            newest_only: hold the newest one alone and never wait: of a camera an old frame is of no use.
        """
        self.dropped = 0
        self._held: deque[T] = deque()
        self._ahead = 1 if newest_only else ahead
        self._newest_only = newest_only
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, args=(frames,), name="edgeformer-frames", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Frames that are under way at once, at most: those held, and the one that is worked on."""
        return self._ahead + 1

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._ended)
                if not self._held:
                    if self._failure is not None:
                        raise self._failure
                    return
                frame = self._held.popleft()
                self._changed.notify_all()
            yield frame

    def __enter__(self) -> FrameReader[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_SECONDS)

    def _read(self, frames: Iterable[T]) -> None:
        try:
            for frame in frames:
                if not self._hold(frame):
                    break
        except BaseException as error:  # raised where the frames are used
            self._failure = error
        finally:
            if (close := getattr(frames, "close", None)) is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _hold(self, frame: T) -> bool:
        """Keep a frame for who iterates; False once nobody does any more."""
        with self._changed:
            if self._newest_only and self._held:
                self._held.clear()
                self.dropped += 1
            self._changed.wait_for(lambda: self._stopped or len(self._held) < self._ahead)
            if not self._stopped:
                self._held.append(frame)
            self._changed.notify_all()
            return not self._stopped
