"""What the commands share: output for people and for machines, progress, and the options that all take."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from edgeformer.errors import EdgeformerError
from edgeformer.supervision.limits import time_limit
from edgeformer.text import printable

__all__ = [
    "common_options",
    "console",
    "error_document",
    "print_error",
    "print_json",
    "progress",
    "simple_table",
    "status",
    "timeout_option",
]

F = TypeVar("F", bound=Callable[..., Any])


class _PlainConsole(Console):
    """A console to which a string is text: names from files are no markup, no emoji and no sequences for the terminal.

    Every string that rich prints, in tables too, passes through `render_str`. What has a style is a `rich.text.Text`.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As in rich, with everything escaped that a terminal would act on."""
        return super().render_str(printable(text), **options)


# People read standard error while a command works and standard output when it is done; machines read only the latter.
console: Console = _PlainConsole()
status: Console = _PlainConsole(stderr=True)


class _PrintableFormatter(logging.Formatter):
    """Messages quote files, too."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _LogHandler(logging.Handler):
    """Prints a record as one line that is not wrapped, so that it can be searched for and pasted."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "red" if record.levelno >= logging.ERROR else "yellow"
        name = f"{record.levelname.lower()}: "
        status.print(Text(name, style).append(self.format(record), "default"), soft_wrap=True)


class _Description(ProgressColumn):
    """What a task is at, as plain text."""

    def render(self, task: Task) -> Text:
        """The task's description."""
        return Text(printable(task.description))


def common_options(function: F) -> F:
    """Add ``--json`` and ``--verbose``; the command gets ``as_json`` and the logging level is set."""

    def set_level(ctx: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
        level = logging.DEBUG if verbose else logging.WARNING
        handler = RichHandler(console=status) if verbose else _LogHandler()
        handler.setFormatter(_PrintableFormatter("%(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.getLogger("edgeformer").setLevel(level)
        # TensorRT warns of much that is as it should be; the warnings are in the engine's report all the same.
        logging.getLogger("edgeformer.tensorrt").setLevel(logging.DEBUG if verbose else logging.ERROR)

    verbose = click.option(
        "--verbose", "-v", is_flag=True, expose_value=False, callback=set_level, help="Log every step, with its source."
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for machines.")
    return as_json(verbose(function))


def timeout_option(function: F) -> F:
    """Add ``--timeout``, which takes the place of every step's own limit while the command runs."""

    def limit(ctx: click.Context, _parameter: click.Parameter, seconds: float | None) -> None:
        if seconds is not None:
            ctx.with_resource(time_limit(seconds))

    option = click.option(
        "--timeout",
        type=float,
        metavar="SECONDS",
        expose_value=False,
        callback=limit,
        help="Longest time for a single step, such as a run of the model on one batch or the engine's build.  "
        "[default: by step and size of the model, at least 30]",
    )
    return option(function)


def error_document(error: EdgeformerError) -> dict[str, str]:
    """An error as ``--json`` has it."""
    return {"kind": type(error).__name__, "code": error.code, "message": str(error)}


def print_error(error: EdgeformerError) -> None:
    """Print an error for people, on standard error."""
    click.echo(click.style(f"error {error.code}: ", fg="red", bold=True) + printable(str(error)), err=True)


def print_json(document: Any) -> None:
    """Print ``document`` as one JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def simple_table(*headers: str) -> Table:
    """A table without frames, whose first column (names to copy) is never broken over lines."""
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    return table


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A progress display on standard error; nothing is shown when ``quiet`` or when nobody watches a terminal."""
    columns = (
        SpinnerColumn(),
        _Description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=status, transient=True, disable=quiet or not status.is_terminal) as bar:
        yield bar
