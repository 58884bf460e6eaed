"""The options that say which model is meant; `build` and `export` take the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgeformer.cli._common import SIZE, existing_file, preprocessing_option

__all__ = ["model_options"]

F = TypeVar("F", bound=Callable[..., Any])


def _overrides(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is no NAME=VALUE, such as num_classes=5")
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError:
            parsed = text
        found[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found


def model_options(function: F) -> F:
    """Add MODEL and what belongs to it, named as `edgeformer.pipeline.model_source.model_source` takes them."""
    options = [
        click.argument("model"),
        click.option("--checkpoint", type=existing_file, help="The named model's weights: .pth, .pt or .safetensors."),
        click.option("--random-weights", is_flag=True, help="Random weights instead, to see what a build costs."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            callback=_overrides,
            metavar="NAME=VALUE",
            help="Replace a field of the named model's configuration, such as num_classes=5; repeatable.",
        ),
        click.option("--input-size", type=SIZE, help="Height and width of the images.  [default: the model's]"),
        preprocessing_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function
