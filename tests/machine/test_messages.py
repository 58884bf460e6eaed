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
