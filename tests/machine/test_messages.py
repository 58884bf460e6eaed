from __future__ import annotations

import re
from types import SimpleNamespace

from edgeformer.machine.messages import MessageLog, make_logger


def test_messages_are_split_by_severity() -> None:
    forwarded: list[tuple[str, str]] = []
    messages = MessageLog(keeps=re.compile("Total"), forward=lambda *message: forwarded.append(message))
    trt = SimpleNamespace(ILogger=type("ILogger", (), {}))
    logger = make_logger(trt, messages)  # type: ignore[arg-type]  # stands in for the module
    for severity, text in [
        ("VERBOSE", "noise"),
        ("VERBOSE", "Total of layers"),
        ("INFO", "Total memory"),
        ("INFO", "hello"),
        ("WARNING", "careful\n"),
        ("WARNING", "careful"),
        ("ERROR", "broken"),
        ("INTERNAL_ERROR", "very broken"),
    ]:
        logger.log(SimpleNamespace(name=severity), text)
    assert messages.notes == ["Total of layers", "Total memory"]
    assert messages.warnings == ["careful"]
    assert messages.errors == ["broken", "very broken"]
    assert [severity for severity, _ in forwarded] == ["INFO", "INFO", "WARNING", "WARNING", "ERROR", "INTERNAL_ERROR"]


def test_what_is_ignored_is_neither_kept_nor_forwarded() -> None:
    forwarded: list[tuple[str, str]] = []
    messages = MessageLog(ignores=re.compile("no news"), forward=lambda *message: forwarded.append(message))
    for severity in ("INFO", "WARNING", "ERROR"):
        messages.add(severity, "this is no news")
        messages.add(severity, "this is")
    messages.add("ERROR", "this is no news\nbut this is\n")
    assert messages.warnings == ["this is"]
    assert messages.errors == ["this is", "but this is"]
    assert forwarded.pop() == ("ERROR", "but this is")
    assert forwarded == [("INFO", "this is"), ("WARNING", "this is"), ("ERROR", "this is")]
