"""Options, each written once: its default, its help, and how the command line spells it.

An option is a field of a request (`edgeformer.pipeline.request`), annotated with `Option`. From the fields come the
keyword arguments of the Python functions (`takes`) and the options of the command line (`edgeformer.cli._options`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, get_type_hints

__all__ = ["Argument", "Field", "Kind", "Option", "fields_of", "takes"]

P = ParamSpec("P")
R = TypeVar("R")
Request = TypeVar("Request")

# What the command line makes of an option's words.
Kind = Literal[
    "text",
    "choice",
    "path",
    "file",
    "integer",
    "number",
    "mebibytes",
    "flag",
    "switch",
    "size",
    "fields",
    "preprocessing",
    "names",
]


@dataclass(frozen=True)
class Argument:
    """A field that every command spells in its own way, or that only Python has.

    Attributes:
        help: a sentence for the docstring of the Python function.
    """

    help: str


@dataclass(frozen=True)
class Option:
    """A field that is an option of the command line.

    Attributes:
        help: a sentence or two, for ``--help`` and for the docstring of the Python function.
        kind: how its words are read. ``flag`` is given or not; ``switch`` has ``--x`` and ``--no-x``.
        name: its name on the command line, without hyphens in front; empty for the field's own.
        metavar: placeholder for its value; ``None`` takes the kind's.
        choices: the values that ``choice`` allows.
        default: what applies where it is not given, in words, where the field's default does not tell.
    """

    help: str
    kind: Kind = "text"
    name: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    default: str = ""


class Field(NamedTuple):
    """A field of a request: its name, its default (``dataclasses.MISSING`` for none), and what is known of it."""

    name: str
    default: Any
    about: Argument | Option


def fields_of(request: Any) -> Iterator[Field]:
    """The annotated fields of a request, in the order in which its constructor takes them."""
    hints = get_type_hints(request, include_extras=True)
    for item in fields(request):
        for about in getattr(hints[item.name], "__metadata__", ()):
            if isinstance(about, (Argument, Option)):
                yield Field(item.name, item.default, about)


def takes(request: Callable[P, Request]) -> Callable[[Callable[[Request], R]], Callable[P, R]]:
    """Let a function of one request be called with the request's fields, and say so in its signature and docstring."""

    def decorate(function: Callable[[Request], R]) -> Callable[P, R]:
        def call(*words: P.args, **named: P.kwargs) -> R:
            return function(request(*words, **named))

        vars(call)["__signature__"] = _signature(request, inspect.signature(function).return_annotation)
        for name in ("__module__", "__name__", "__qualname__"):
            setattr(call, name, getattr(function, name))
        call.__doc__ = _with_arguments(inspect.getdoc(function) or "", request)
        return call

    return decorate


def _signature(request: Any, returns: Any) -> inspect.Signature:
    """The constructor's, without what only the command line needs."""
    hints = get_type_hints(request)
    signature = inspect.signature(request)
    parameters = [item.replace(annotation=hints[item.name]) for item in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=returns)


def _with_arguments(text: str, request: Any) -> str:
    """A docstring with an ``Args`` section of the request's fields, before ``Raises`` where there is one."""
    lines = ["Args:"]
    for name, default, about in fields_of(request):
        words = about.default if isinstance(about, Option) else ""
        if not words and default is not None and default is not MISSING:
            words = repr(default)
        lines.append(f"    {name}: {about.help}" + (f" Default: {words}." if words else ""))
    before, raises, after = text.partition("\nRaises:\n")
    return "\n".join([before.rstrip(), "", *lines, *(["", "Raises:", after] if raises else [])])
