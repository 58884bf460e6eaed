"""An option written once: the Python function's signature, docstring and checks all come from the request."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, field
from typing import Annotated

import pytest

from edgeformer.pipeline.options import Argument, Option, fields_of, takes


@dataclass(frozen=True, kw_only=True)
class Base:
    size: Annotated[int | None, Option("Size in pixels.", "integer", default="the model's")] = None


@dataclass(frozen=True, kw_only=True)
class Request(Base):
    name: Annotated[str, Argument("What to call it.")] = field(kw_only=False)
    fast: Annotated[bool, Option("Go fast.", "flag")] = False
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise ValueError("hidden")


@takes(Request)
def work(request: Request) -> str:
    """Do the work.

    Raises:
        ValueError: it is hidden.
    """
    return f"{request.name} {request.size} {request.fast}"


def test_the_function_takes_the_requests_fields() -> None:
    assert work("a") == "a None False"
    assert work("a", size=3, fast=True) == "a 3 True"
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        work("a", sise=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="hidden"):
        work("a", hidden=-1)


def test_the_signature_is_the_requests() -> None:
    signature = inspect.signature(work)
    assert list(signature.parameters) == ["name", "size", "fast", "hidden"]
    assert signature.parameters["size"].annotation == (int | None)
    assert signature.parameters["fast"].kind is inspect.Parameter.KEYWORD_ONLY
    assert signature.return_annotation == "str"
    assert work.__name__ == "work"


def test_the_docstring_lists_the_arguments_before_what_is_raised() -> None:
    lines = (work.__doc__ or "").splitlines()
    assert lines == [
        "Do the work.",
        "",
        "Args:",
        "    size: Size in pixels. Default: the model's.",
        "    name: What to call it.",
        "    fast: Go fast. Default: False.",
        "",
        "Raises:",
        "    ValueError: it is hidden.",
    ]


def test_fields_that_are_not_annotated_are_no_options() -> None:
    found = {name: default for name, default, _ in fields_of(Request)}
    assert found == {"size": None, "name": MISSING, "fast": False}
