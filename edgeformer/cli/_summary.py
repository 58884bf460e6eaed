"""The table a build ends with."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from edgeformer.bundle import Manifest
from edgeformer.bundle.details import EngineDetails
from edgeformer.bundle.figures import accuracy_lines, attention_line, engine_line, stage_time
from edgeformer.bundle.files import REPORT
from edgeformer.bundle.next_steps import next_steps
from edgeformer.bundle.report_file import report_state
from edgeformer.cli._common import simple_table
from edgeformer.records.terms import QUANTIZED

__all__ = ["print_next_steps", "print_summary"]

_COLOURS = {"passed": "green", "missed": "red", "not run": "yellow", "not judged": "default"}


def print_summary(console: Console, bundle: Path, manifest: Manifest, seconds: float | None = None) -> None:
    """Print each stage's time, gate figure and verdict, the accuracies, the engine's size and the bundle's path."""
    table = simple_table("stage", "time", "verdict", "figure")
    for stage in manifest.stages:
        figure = stage.gate or stage.note or ""
        table.add_row(stage.name, stage_time(stage), Text(stage.verdict, _COLOURS[stage.verdict]), figure)
    console.print(table)
    for line in accuracy_lines(manifest):
        console.print(line)
    attention = attention_line(manifest)
    if attention is not None:
        console.print(attention)
    made = engine_line(manifest)
    if made is not None:
        console.print(f"engine      {made}")
    if manifest.precision in QUANTIZED:
        from edgeformer.engine.target_types import gain_lines

        target = manifest.target
        for line in gain_lines(target.name, target.flavour, target.sms, manifest.precision):
            console.print(f"precision   {line}", soft_wrap=True)
    engine = manifest.details(EngineDetails)
    if engine is not None and engine.left_to_do:
        console.print("left to do:")
        for step in engine.left_to_do:
            console.print(f"  - {step}")
    took = "" if seconds is None else f"   ({seconds:.1f} s)"
    console.print(f"bundle      {bundle}{took}", soft_wrap=True)
    if report_state(bundle) == "current":
        console.print(f"report      {bundle / REPORT}", soft_wrap=True)


def print_next_steps(console: Console, bundle: Path, manifest: Manifest) -> None:
    """Print what to do with the bundle, a comment and a command for each step."""
    console.print("\nnext:")
    for command, purpose in next_steps(bundle, manifest):
        console.print(f"  # {purpose}", soft_wrap=True)
        console.print(f"  {command}", soft_wrap=True)
