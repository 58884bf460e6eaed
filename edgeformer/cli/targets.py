"""``edgeformer targets``: the machines an engine can be built for."""

from __future__ import annotations

import click

from edgeformer.cli._common import common_options, console, print_json, simple_table


@click.command("targets")
@common_options
def command(as_json: bool) -> None:
    """List the machines an engine can be built for.

    The last column says whether this machine can build for them.
    """
    from edgeformer.engine.targets import can_build, list_targets

    targets = [(target, can_build(target)) for target in list_targets()]
    if as_json:
        print_json([{**target.model_dump(), "buildable": here.ok, "reason": here.reason} for target, here in targets])
        return
    table = simple_table("target", "SM", "CPU", "TensorRT", "memory", "engine built", "buildable here")
    for target, here in targets:
        flavour = "RTX " if target.flavour == "tensorrt_rtx" else ""
        table.add_row(
            target.name,
            str(target.sm),
            target.cpu,
            f"{flavour}{target.tensorrt_minimum}+",
            f"{target.memory_gb:g} GB",
            "anywhere" if target.built == "anywhere" else "on device",
            "yes" if here else "no",
        )
    console.print(table)
    console.print("'--target local' takes the GPU of this machine.")
