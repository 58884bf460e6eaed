"""Options of the command line, as they are made from the fields of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
import pytest
from click.testing import CliRunner

from edgeformer.cli._options import options_from
from edgeformer.data import Preprocessing
from edgeformer.pipeline.options import Option


@dataclass(frozen=True, kw_only=True)
class Request:
    precision: Annotated[str, Option("Type.", "choice", choices=("fp16", "int8"))] = "fp16"
    images: Annotated[int, Option("How many.", "integer", metavar="N")] = 256
    drop: Annotated[float | None, Option("Points.", "number", default="1")] = None
    workspace_bytes: Annotated[int | None, Option("Limit.", "mebibytes", name="workspace")] = None
    embed: Annotated[bool, Option("Embed it.", "flag")] = False
    use_plugin: Annotated[bool, Option("Take it.", "switch", name="plugin")] = True
    compare: Annotated[bool | None, Option("Compare.", "switch", default="it depends")] = None
    size: Annotated[tuple[int, int] | None, Option("Size.", "size")] = None
    overrides: Annotated[dict[str, Any] | None, Option("Replace.", "fields", name="set")] = None
    preprocessing: Annotated[Preprocessing | str | None, Option("Prepare.", "preprocessing")] = None


def given(*words: str) -> tuple[dict[str, Any], str]:
    """What a command with these options gets, and what it prints where it gets nothing."""
    seen: dict[str, Any] = {}

    @click.command()
    @options_from(Request)
    def command(**options: Any) -> None:
        seen.update(options)

    result = CliRunner().invoke(command, list(words), terminal_width=200)
    return seen, result.output


def test_defaults_are_the_requests() -> None:
    assert given()[0] == {
        "precision": "fp16",
        "images": 256,
        "drop": None,
        "workspace_bytes": None,
        "embed": False,
        "use_plugin": True,
        "compare": None,
        "size": None,
        "overrides": {},
        "preprocessing": None,
    }


def test_every_kind_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(Preprocessing(7, 9).to_dict()))
    words = "--precision int8 --images 3 --drop 0.5 --workspace 2 --embed --no-plugin --compare --size 5x6"
    seen, _ = given(*words.split(), "--set", "a=[1, 2]", "--set", "b=x", "--preprocessing", str(path))
    assert seen == {
        "precision": "int8",
        "images": 3,
        "drop": 0.5,
        "workspace_bytes": 2 << 20,
        "embed": True,
        "use_plugin": False,
        "compare": True,
        "size": (5, 6),
        "overrides": {"a": (1, 2), "b": "x"},
        "preprocessing": Preprocessing(7, 9),
    }
    assert given("--size", "8")[0]["size"] == (8, 8)
    for word in ("none", "scale"):
        assert given("--preprocessing", word)[0]["preprocessing"] == word


def test_help_says_what_applies_without_the_option() -> None:
    _, shown = given("--help")
    for line in (
        "Type.  [default: fp16]",
        "How many.  [default: 256]",
        "Points.  [default: 1]",
        "Take it.  [default: plugin]",
        "Compare.  [default: it depends]",
    ):
        assert line in shown
    assert "Embed it.  [default" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "0"], "'0' is not a size"),
        (["--size", "5x0"], "'5x0' is not a size"),
        (["--set", "a"], "'a' is not NAME=VALUE"),
        (["--set", "=1"], "'=1' is not NAME=VALUE"),
        (["--precision", "fp8"], "'fp8' is not one of 'fp16', 'int8'"),
        (["--images", "x"], "'x' is not a valid integer"),
        (["--preprocessing", "missing.json"], "does not exist"),
        (["--preprocessing", "mean_std"], "does not exist"),
    ],
)
def test_bad_words_are_named(words: list[str], message: str) -> None:
    seen, shown = given(*words)
    assert seen == {}
    assert message in shown


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "3", "\xff"])
def test_a_preprocessing_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(text.encode("latin-1"))
    seen, shown = given("--preprocessing", str(path))
    assert seen == {}
    assert "not a JSON object with the fields of a preprocessing" in shown
