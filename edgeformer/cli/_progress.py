"""A build's progress on the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.progress import TaskID

from edgeformer.bundle import StageRecord
from edgeformer.cli._common import progress, status
from edgeformer.pipeline.observer import Observer

__all__ = ["StageProgress"]


class StageProgress(Observer):
    """Shows a bar for the stage at work and leaves a line for each that is done."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._context = progress(quiet)
        self._task: TaskID | None = None

    def __enter__(self) -> StageProgress:
        self._bar = self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)

    def started(self, stage: str) -> None:
        """Begin a bar of unknown length."""
        self._task = self._bar.add_task(stage, total=None)

    def progressed(self, stage: str, text: str, done: int, total: int | None) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.update(self._task, description=f"{stage}: {text}", completed=done, total=total)

    def finished(self, record: StageRecord) -> None:
        """Replace the bar by a line."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if not self._quiet:
            how = "reused" if record.reused else record.verdict
            status.print(f"  {record.name:<17} {record.seconds:7.1f} s  {how}")
