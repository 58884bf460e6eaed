"""How long work reports its progress, whatever does the work: one protocol for every room."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress"]


class Progress(Protocol):
    """Called before the first step and after each."""

    def __call__(self, text: str, done: int, total: int | None, /) -> object:
        """``done`` of ``total`` steps (``None``: unknown) of what ``text`` names are done."""
