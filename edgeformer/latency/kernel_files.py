"""The small files in which the kernel tells of the machine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["number_of", "text_of"]


def text_of(path: Path | None) -> str:
    """What a file says; empty where it is not there or not readable."""
    try:
        return "" if path is None else path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def number_of(path: Path | None) -> float | None:
    """The number that a file holds; None where there is none."""
    try:
        return float(text_of(path))
    except ValueError:
        return None
