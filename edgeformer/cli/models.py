"""``edgeformer models``: the architectures that have a name."""

from __future__ import annotations

import click
from rich.table import Table

from edgeformer.cli._common import common_options, console, print_json, simple_table


@click.command("models")
@common_options
def command(as_json: bool) -> None:
    """List the named models, their input sizes and parameters."""
    from edgeformer.models.registry import list_models, model_info

    infos = [model_info(name) for name in list_models()]
    if as_json:
        print_json(
            [
                {
                    "name": info.name,
                    "description": info.description,
                    "input_size": list(info.input_size),
                    "num_classes": info.num_classes,
                    "params_millions": info.params_millions,
                    "preprocessing": info.preprocessing.to_dict(),
                }
                for info in infos
            ]
        )
        return
    table: Table = simple_table("model", "input", "parameters", "description")
    for info in infos:
        height, width = info.input_size
        table.add_row(info.name, f"{height}x{width}", f"{info.params_millions:.2f} M", info.description)
    console.print(table)
