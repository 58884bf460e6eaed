"""``edgeformer targets``: the machines an engine can be built for, and what each JetPack brings for Jetsons."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

import click

from edgeformer.cli._common import common_options, console, print_json, simple_table
from edgeformer.records.terms import QUANTIZED


@click.command("targets")
@common_options
def command(as_json: bool) -> None:
    """List the machines an engine can be built for.

    An engine is built anywhere, without a GPU, or on the device itself; the last column says whether it can be built
    here. A second table has what quantized precisions (--precision of a build) make of a GPU, a third what each JetPack
    brings.
    """
    from edgeformer.engine.target_types import GAINS, support, support_table
    from edgeformer.engine.targets import can_build, list_targets
    from edgeformer.machine.jetpack import list_jetpacks, tensorrt_without_jetpack

    targets = [(target, can_build(target)) for target in list_targets()]
    if as_json:
        print_json(
            [
                {
                    **target.model_dump(),
                    "precisions": [asdict(support(target.flavour, target.sms, one)) for one in QUANTIZED],
                    "buildable": here.ok,
                    "reason": here.reason,
                }
                for target, here in targets
            ]
        )
        return
    table = simple_table("target", "SM", "CPU", "TensorRT", "memory", "built", "here")
    for target, here in targets:
        flavour = "RTX " if target.flavour == "tensorrt_rtx" else ""
        table.add_row(
            target.name,
            str(target.sm) if len(target.sms) == 1 else f"{target.sm}-{target.sms[-1]}",
            target.cpu,
            f"{flavour}{target.tensorrt_minimum}+",
            "" if target.memory_gb is None else f"{target.memory_gb:g} GB",
            "anywhere" if target.built == "anywhere" else "device",
            "yes" if here else "no",
        )
    console.print(table)
    for target, _ in targets:
        if len(target.sms) > 1:
            console.print(f"'--target {target.name}' is one engine for SM {', '.join(map(str, target.sms))}.")
    console.print("'--target local' takes the GPU of this machine.")
    table = simple_table("TensorRT", "SM", *QUANTIZED)
    rows = [(flavour, tuple(found[one].gain for one in QUANTIZED), sms) for flavour, sms, found in support_table()]
    for (flavour, gains), same in groupby(rows, lambda row: row[:2]):
        sms = [sm for *_, group in same for sm in group]
        name = "RTX" if flavour == "tensorrt_rtx" else "TensorRT"
        table.add_row(name, str(sms[0]) if len(sms) == 1 else f"{sms[0]}-{sms[-1]}", *gains)
    console.print(table)
    for gain, words in GAINS.items():
        console.print(f"{gain}: {words}.")
    console.print("With --json every precision has the reason and its source.")
    table = simple_table("JetPack", "L4T", "TensorRT", "CUDA", "Python", "SM")
    for jetpack in list_jetpacks():
        table.add_row(
            jetpack.name,
            ", ".join(jetpack.l4t),
            jetpack.tensorrt or "",
            jetpack.cuda or "",
            jetpack.python or "",
            ", ".join(map(str, jetpack.sms)),
        )
    console.print(table)
    console.print(f"No JetPack brings TensorRT {', '.join(tensorrt_without_jetpack())}.")
