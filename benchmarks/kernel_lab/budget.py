"""The time that a run may take."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Budget"]


class Budget:
    """Counts down from a number of seconds.

    Args:
        seconds: the whole budget.
        clock: gives the time in seconds.
        start: when it began, on that clock; None: now.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic, start: float | None = None) -> None:
        self.seconds = seconds
        self._clock = clock
        self._start = clock() if start is None else start

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.seconds - self.spent
