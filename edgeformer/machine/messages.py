"""TensorRT's messages, split by what they are for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

__all__ = ["MessageLog", "make_logger"]


@dataclass
class MessageLog:
    """TensorRT's messages of one build or one run.

    Attributes:
        keeps: which information and verbose messages go to ``notes``; ``None`` for none.
        ignores: harmless lines, of any severity, to leave out altogether; ``None`` for none.
        warnings: each different warning once, in order.
        errors: every error, in order.
        notes: the messages that `keeps` matches, in order.
        forward: called with (severity, text) for each message that is not verbose.
    """

    keeps: re.Pattern[str] | None = None
    ignores: re.Pattern[str] | None = None
    forward: Any = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def kept_lines(self, text: str) -> list[str]:
        """The lines of a text without those that are ignored."""
        return [line for line in text.splitlines() if not (self.ignores and self.ignores.search(line))]

    def add(self, severity: str, text: str) -> None:
        """Take one message; ``severity`` is the name of TensorRT's ILogger.Severity."""
        text = "\n".join(self.kept_lines(text)).strip()
        if not text:
            return
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(text)
        elif severity == "WARNING":
            if text not in self.warnings:
                self.warnings.append(text)
        elif self.keeps is not None and self.keeps.search(text):
            self.notes.append(text)
        if self.forward is not None and severity != "VERBOSE":
            self.forward(severity, text)


def make_logger(trt: ModuleType, messages: MessageLog) -> Any:
    """A ``trt.ILogger`` that hands every message to ``messages``."""

    class Bridge(trt.ILogger):  # type: ignore[name-defined,misc]  # the base class comes from a module found at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.add(severity.name, msg)

    return Bridge()
