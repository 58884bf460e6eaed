"""Options of the command line made from the fields of requests (`edgeformer.pipeline.request`)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeformer.errors import InputError
from edgeformer.outputs import check_output
from edgeformer.pipeline.options import Field, Option, fields_of
from edgeformer.text import parse_json, read_json, shortened

__all__ = ["existing_file", "options_from", "output_file", "output_folder", "output_path", "preprocessing_file"]

F = TypeVar("F", bound=Callable[..., Any])

# A path that a command reads or makes; whether it fits is for the command to say.
output_path = click.Path(path_type=Path)
_PREPROCESSING_FILE = "edgeformer.preprocessing_file"
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Output(click.Path):
    """A path that a command makes, checked before the command does anything."""

    def __init__(self, *, folder: bool) -> None:
        super().__init__(path_type=Path)
        self._folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            check_output(path, folder=self._folder)
        except OSError as error:
            raise InputError("EF102", f"{error.filename or path}: cannot be written: {error.strerror}") from error
        return path


output_file = _Output(folder=False)
output_folder = _Output(folder=True)


class _Size(click.ParamType[tuple[int, int]]):
    """An input size: ``224`` for a square, ``512x640`` for height x width, in pixels."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", value)
        if not match or int(match[1]) < 1 or (match[2] is not None and int(match[2]) < 1):
            self.fail(
                f"{shortened(value)!r} is not a size: write 224 for a square, or 512x640 for height x width, in pixels"
            )
        return int(match[1]), int(match[2] or match[1])

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "H[xW]"


def preprocessing_file() -> Path | None:
    """The file that ``--preprocessing`` of the running command named; a request holds only what was in it."""
    path: Path | None = click.get_current_context().meta.get(_PREPROCESSING_FILE)
    return path


class _Preprocessing(click.ParamType[Any]):
    """What is done to pixels in a word, or a JSON file with the fields of a `Preprocessing`."""

    name = "preprocessing"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from edgeformer.data import Preprocessing
        from edgeformer.data.preprocessing import WORDS

        if isinstance(value, Preprocessing) or value in WORDS:
            return value
        path = existing_file.convert(value, param, ctx)
        if ctx is not None:
            ctx.meta[_PREPROCESSING_FILE] = path
        try:
            return Preprocessing.from_dict(read_json(path))
        except (ValueError, AttributeError, TypeError) as error:
            self.fail(f"{path} is not a JSON object with the fields of a preprocessing: {error}")


def _overrides(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{shortened(value)!r} is not NAME=VALUE, such as num_classes=5")
        try:
            parsed = parse_json(text)
        except json.JSONDecodeError:
            parsed = text
        except ValueError as error:
            raise click.BadParameter(f"the value of {shortened(name)!r} cannot be used: {error}") from None
        found[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found


def _mebibytes(_ctx: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    return None if value is None else value << 20


# Keyword arguments of `click.option` for each kind of option that is not a flag or a switch.
_KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": str},
    "path": {"type": output_path, "metavar": "PATH"},
    "file": {"type": existing_file},
    "integer": {"type": int},
    "number": {"type": float},
    "mebibytes": {"type": int, "callback": _mebibytes},
    "size": {"type": _Size()},
    "fields": {"multiple": True, "callback": _overrides},
    "preprocessing": {"type": _Preprocessing()},
    "names": {"multiple": True},
}


def options_from(request: type) -> Callable[[F], F]:
    """Add an option for each field of ``request`` that is one; the command gets them under the fields' names.

    Args:
        request: a request, or a part of one.
    """

    def decorate(function: F) -> F:
        for field in reversed(list(fields_of(request))):
            if isinstance(field.about, Option):
                function = _click_option(field, field.about)(function)
        return function

    return decorate


def _click_option(field: Field, about: Option) -> Callable[[F], F]:
    name = about.name or field.name.replace("_", "-")
    default = about.default
    spelling = f"--{name}"
    words: dict[str, Any] = {"default": field.default, "metavar": about.metavar}
    if about.kind == "switch":
        spelling = f"--{name}/--no-{name}"
        if not default:
            default = name if field.default else f"no-{name}"
    elif about.kind == "flag":
        words |= {"is_flag": True, "default": False}
    elif about.kind == "choice":
        words |= {"type": click.Choice(about.choices)}
    else:
        words |= {key: value for key, value in _KINDS[about.kind].items() if key != "metavar" or not about.metavar}
    if about.kind in ("fields", "names"):
        del words["default"]
    if not default and field.default is not None and about.kind != "flag":
        default = str(field.default)
    text = f"{about.help}  [default: {default}]" if default else about.help
    return click.option(spelling, field.name, help=text, **words)
