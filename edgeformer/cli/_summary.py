"""The table a build ends with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from edgeformer.bundle import Manifest
from edgeformer.bundle.details import EngineDetails, ParityDetails
from edgeformer.bundle.files import ENGINE
from edgeformer.cli._common import percent, score_text, simple_table
from edgeformer.cli._next_steps import next_steps
from edgeformer.records.verification import FormReport

__all__ = ["print_next_steps", "print_summary"]

_COLOURS = {"passed": "green", "missed": "red", "not run": "yellow", "not judged": "default"}


def _forms(manifest: Manifest) -> dict[str, FormReport]:
    """What the parity stage found of each form of the model, by name."""
    parity = manifest.details(ParityDetails)
    return {} if parity is None else {form.name: form for form in parity.report.forms}


def _snr_db(form: FormReport) -> float:
    """SNR against the exported model in dB, the lowest of those outputs that have one: integers have none."""
    figures = (output.snr_db for output in (form.first or {}).values())
    return min((snr for snr in figures if snr is not None), default=math.inf)


def _attention(manifest: Manifest) -> str | None:
    """What INT8 attention costs, where a bundle has it: SNR and the routing agreement with it and without."""
    from edgeformer.pipeline.stages.parity import FLOAT_ATTENTION

    forms = _forms(manifest)
    if FLOAT_ATTENTION not in forms:
        return None

    def figures(name: str, of: str = "") -> str:
        form = forms[name]
        routing = "" if form.routing_first is None else f", {percent(100 * form.routing_first.agreement)}{of}"
        return f"{_snr_db(form):.1f} dB{routing}"

    return f"attention   INT8: {figures('typed', ' of routing sets')}; in FP16: {figures(FLOAT_ATTENTION)}"


def _accuracies(manifest: Manifest) -> Iterator[str]:
    forms = _forms(manifest)
    compared = {"fp16": "fp16", manifest.precision: "typed"}
    for precision, score in manifest.accuracy.items():
        line = f"{score.metric} {precision.upper():<5} {score_text(score):>8}   of {score.samples} labelled images"
        if precision != "fp32" and compared.get(precision) in forms:
            line += f", {_snr_db(forms[compared[precision]]):.1f} dB from FP32"
        yield line


def print_summary(console: Console, bundle: Path, manifest: Manifest, seconds: float | None = None) -> None:
    """Print each stage's time, gate figure and verdict, the accuracies, the engine's size and the bundle's path."""
    table = simple_table("stage", "time", "verdict", "figure")
    for stage in manifest.stages:
        time = f"{stage.seconds:.1f} s" + (", reused" if stage.reused else "")
        figure = stage.gate or stage.note or ""
        table.add_row(stage.name, time, Text(stage.verdict, _COLOURS[stage.verdict]), figure)
    console.print(table)
    for line in _accuracies(manifest):
        console.print(line)
    attention = _attention(manifest)
    if attention is not None:
        console.print(attention)
    engine = manifest.details(EngineDetails)
    record = manifest.files.get(ENGINE)
    if record is not None and engine is not None and engine.report is not None:
        plugins = engine.report.plugin.in_network
        sms = ", ".join(map(str, manifest.target.sms))
        console.print(
            f"engine      {record.size / 1e6:.2f} MB for {manifest.target.name} (SM {sms}), {plugins} plugin layers"
        )
    if engine is not None and engine.left_to_do:
        console.print("left to do:")
        for step in engine.left_to_do:
            console.print(f"  - {step}")
    took = "" if seconds is None else f"   ({seconds:.1f} s)"
    console.print(f"bundle      {bundle}{took}", soft_wrap=True)


def print_next_steps(console: Console, bundle: Path, manifest: Manifest) -> None:
    """Print what to do with the bundle, a comment and a command for each step."""
    console.print("\nnext:")
    for command, purpose in next_steps(bundle, manifest):
        console.print(f"  # {purpose}", soft_wrap=True)
        console.print(f"  {command}", soft_wrap=True)
