"""What is printed is text: names from files are neither markup nor sequences that a terminal acts on."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from edgeformer.cli import _common
from edgeformer.cli._common import console, print_error, progress, simple_table, status
from edgeformer.errors import InputError

HOSTILE = "[/red] [bold]x[/bold] :cat: \x1b[2Jname\udce9 'a' 12"
SHOWN = "[/red] [bold]x[/bold] :cat: \\x1b[2Jname\\xe9 'a' 12"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the consoles print, as for a terminal of 200 columns with colours."""
    shown = io.StringIO()
    for each in (console, status):
        monkeypatch.setattr(each, "_file", shown)
        monkeypatch.setattr(each, "_width", 200)
    return shown


def test_strings_and_tables_show_text_as_it_is(screen: io.StringIO) -> None:
    console.print(f"file {HOSTILE}", soft_wrap=True)
    table = simple_table(HOSTILE, "b")
    table.add_row("x", HOSTILE)
    console.print(table)
    assert screen.getvalue().count(SHOWN) == 3
    assert "\x1b" not in screen.getvalue()


def test_numbers_and_quotes_are_not_coloured() -> None:
    shown = io.StringIO()
    terminal: Any = _common._PlainConsole()
    coloured: Any = Console(force_terminal=True, color_system="truecolor")
    terminal.file = shown
    terminal._force_terminal, terminal._color_system = (
        True,
        coloured._color_system,
    )
    terminal.print(HOSTILE, soft_wrap=True)
    assert shown.getvalue() == f"{SHOWN}\n"


def test_progress_and_log_messages_show_text(screen: io.StringIO) -> None:
    handler = _common._LogHandler()
    handler.setFormatter(_common._PrintableFormatter("%(message)s"))
    handler.emit(logging.LogRecord("edgeformer", logging.WARNING, "", 1, "%s " + "long " * 60, (HOSTILE,), None))
    (line,) = screen.getvalue().splitlines()
    assert line.startswith(f"warning: {SHOWN} long")
    with progress() as bar:
        column: Any = next(each for each in bar.columns if isinstance(each, _common._Description))
    task: Any = SimpleNamespace(description=HOSTILE)
    assert column.render(task).plain == SHOWN


def test_errors_show_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InputError("EF102", f"no file {HOSTILE}"))
    assert SHOWN in capsys.readouterr().err
