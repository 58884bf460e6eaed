"""``edgeformer doctor``: what this machine has, and how to install what is missing."""

from __future__ import annotations

import click
from rich.text import Text

from edgeformer.cli._common import common_options, console, print_json
from edgeformer.text import printable


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
        mark = ("ok     ", "green") if fact.status == "ok" else ("missing", "yellow")
        text = Text.assemble(mark, " ", (fact.name, "bold"), ": ", printable(fact.detail))
        console.print(text, soft_wrap=True)
        if fact.remedy:
            console.print(f"        {fact.remedy}", soft_wrap=True)
