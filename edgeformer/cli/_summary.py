"""The table a build ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edgeformer.bundle import Manifest
from edgeformer.cli._common import simple_table
from edgeformer.cli._next_steps import next_steps

__all__ = ["print_next_steps", "print_summary"]

_COLOURS = {"passed": "green", "missed": "red", "not run": "yellow", "not judged": "default"}


def _snr_db(manifest: Manifest) -> dict[str, float]:
    """SNR of the worst output against the exported model, in dB, by precision."""
    parity = manifest.stage("parity")
    stages = parity.details["forms"] if parity is not None else []
    names = {"fp16": "fp16", "typed": manifest.precision}
    return {names[stage["name"]]: _worst_snr_db(stage) for stage in stages if stage["name"] in names}


def _worst_snr_db(form: Mapping[str, Any]) -> float:
    """The lowest SNR of those outputs that have one: integers have none."""
    found = [output["snr_db"] for output in form["first"].values()]
    return min((float(snr) for snr in found if snr is not None), default=math.inf)


def _attention(manifest: Manifest) -> str | None:
    """What INT8 attention costs, where a bundle has it: SNR and the routing agreement with it and without."""
    from edgeformer.pipeline.stages.parity import FLOAT_ATTENTION

    parity = manifest.stage("parity")
    stages = {stage["name"]: stage for stage in parity.details["forms"]} if parity is not None else {}
    if FLOAT_ATTENTION not in stages:
        return None

    def figures(name: str, unit: str) -> str:
        return f"{_worst_snr_db(stages[name]):.1f} dB, {100 * stages[name]['routing_first']['agreement']:.2f} {unit}"

    return f"attention   INT8: {figures('typed', '% of routing sets')}; in FP16: {figures(FLOAT_ATTENTION, '%')}"


def print_summary(console: Console, bundle: Path, manifest: Manifest, seconds: float | None = None) -> None:
    """Print each stage's time, gate figure and verdict, the accuracies, the engine's size and the bundle's path."""
    table = simple_table("stage", "time", "verdict", "figure")
    for stage in manifest.stages:
        time = f"{stage.seconds:.1f} s" + (", reused" if stage.reused else "")
        figure = stage.gate or stage.note or ""
        table.add_row(stage.name, time, f"[{_COLOURS[stage.verdict]}]{stage.verdict}[/]", figure)
    console.print(table)
    snr = _snr_db(manifest)
    for precision, accuracy in manifest.accuracy.items():
        correct, total = accuracy["correct"], accuracy["total"]
        line = f"top-1 {precision.upper():<5} {100 * correct / total:6.2f} %   {correct} of {total} labelled images"
        if precision in snr:
            line += f", {snr[precision]:.1f} dB from FP32"
        console.print(line, highlight=False)
    attention = _attention(manifest)
    if attention is not None:
        console.print(attention, highlight=False)
    engine = manifest.stage("engine")
    record = manifest.files.get("model.engine")
    if record is not None and engine is not None:
        plugins = engine.details["plugin"]["in_network"]
        console.print(
            f"engine      {record.size / 1e6:.2f} MB for {manifest.target.name} (SM {manifest.target.sm}), "
            f"{plugins} plugin layers",
            highlight=False,
        )
    elif engine is not None:
        console.print("left to do:", highlight=False)
        for step in engine.details.get("left_to_do", []):
            console.print(f"  - {step}", highlight=False)
    took = "" if seconds is None else f"   ({seconds:.1f} s)"
    console.print(f"bundle      {bundle}{took}", highlight=False, soft_wrap=True)


def print_next_steps(console: Console, bundle: Path, manifest: Manifest) -> None:
    """Print what to do with the bundle, a comment and a command for each step."""
    console.print("\nnext:")
    for command, purpose in next_steps(bundle, manifest):
        console.print(f"  # {purpose}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
