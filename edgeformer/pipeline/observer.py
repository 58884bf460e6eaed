"""Who follows a build: told of every stage."""

from __future__ import annotations

from edgeformer.bundle import StageRecord

__all__ = ["Observer"]


class Observer:
    """Follows the stages; every method does nothing unless overridden."""

    def started(self, stage: str) -> None:
        """Stage ``stage`` begins."""

    def progressed(self, stage: str, text: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` steps (``None``: unknown) of what ``text`` names are done."""

    def finished(self, record: StageRecord) -> None:
        """A stage is done, reused or skipped."""
