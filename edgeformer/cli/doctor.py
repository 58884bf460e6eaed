"""``edgeformer doctor``: what this machine has, and how to install what is missing."""

from __future__ import annotations

import click

from edgeformer.cli._common import common_options, console, print_json


@click.command("doctor")
@common_options
def command(as_json: bool) -> None:
    """Check this machine for building and running engines.

    What is missing is listed with the command that installs it.
    """
    from edgeformer.engine.diagnosis import diagnose

    facts = diagnose()
    if as_json:
        print_json([fact.model_dump() for fact in facts])
        return
    for fact in facts:
        mark = "[green]ok     [/]" if fact.status == "ok" else "[yellow]missing[/]"
        console.print(f"{mark} [bold]{fact.name}[/]: {fact.detail}", highlight=False, soft_wrap=True)
        if fact.remedy:
            console.print(f"        {fact.remedy}", highlight=False, soft_wrap=True, markup=False)
