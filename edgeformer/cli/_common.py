"""What the commands share: output for people and for machines, progress, and the options that more than one takes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = [
    "SIZE",
    "calibration_options",
    "common_options",
    "console",
    "existing_file",
    "lepe_option",
    "output_file",
    "output_path",
    "preprocessing_option",
    "print_json",
    "progress",
    "simple_table",
    "status",
]

F = TypeVar("F", bound=Callable[..., Any])

# People read standard error while a command works and standard output when it is done; machines read only the latter.
console = Console()
status = Console(stderr=True)

# A path that a command reads or makes; whether it fits is for the command to say.
output_path = click.Path(path_type=Path)
output_file = click.Path(dir_okay=False, path_type=Path)
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Size(click.ParamType[tuple[int, int]]):
    """An input size: ``224`` for a square, ``512x640`` for height x width, in pixels."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
        if not match or int(match[1]) < 1 or (match[2] is not None and int(match[2]) < 1):
            self.fail(f"{value!r} is no size; write 224 for a square or 512x640 for height x width, in pixels")
        return int(match[1]), int(match[2] or match[1])

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "H[xW]"


SIZE = _Size()


def common_options(function: F) -> F:
    """Add ``--json`` and ``--verbose``; the command gets ``as_json`` and the logging level is set."""

    def set_level(ctx: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
        level = logging.DEBUG if verbose else logging.WARNING
        handler = RichHandler(console=status, show_path=verbose, show_time=verbose)
        logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
        logging.getLogger("edgeformer").setLevel(level)
        # TensorRT warns of much that is as it should be; the warnings are in the engine's report all the same.
        logging.getLogger("edgeformer.tensorrt").setLevel(logging.DEBUG if verbose else logging.ERROR)

    verbose = click.option(
        "--verbose", "-v", is_flag=True, expose_value=False, callback=set_level, help="Log every step, with its source."
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for machines.")
    return as_json(verbose(function))


def _preprocessing(_ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> Any:
    if path is None:
        return None
    from edgeformer.data import Preprocessing

    try:
        return Preprocessing.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise click.BadParameter(f"{path} is no JSON object with the fields of a preprocessing: {error}") from None


preprocessing_option = click.option(
    "--preprocessing",
    type=existing_file,
    callback=_preprocessing,
    help="JSON file that says how images are prepared.  [default: the model's]",
)


lepe_option = click.option(
    "--fuse-lepe/--no-fuse-lepe",
    default=False,
    help="Fold LePE, the depthwise convolution beside the attention, into the op.  [default: no-fuse-lepe]",
)


def calibration_options(function: F) -> F:
    """Add ``--data``, ``--calibration-images``, ``--recipe`` and ``--quantize-attention`` of `build` and `quantize`."""
    from edgeformer.pipeline import CALIBRATION_IMAGES

    options = [
        click.option("--data", type=output_path, help="Calibration images: a folder, an .npy or an .npz file."),
        click.option(
            "--calibration-images",
            type=click.IntRange(min=1),
            default=CALIBRATION_IMAGES,
            show_default=True,
            help="Use at most this many of them.",
        ),
        click.option(
            "--recipe", default="default", show_default=True, help="What becomes INT8 and how: a name, or a JSON file."
        ),
        click.option(
            "--quantize-attention/--no-quantize-attention",
            default=None,
            help="INT8 queries, keys and values for the fused attention, too.  [default: what the recipe says; the "
            "recipe 'default' says no]",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=status, transient=True, disable=quiet or not status.is_terminal) as bar:
        yield bar
