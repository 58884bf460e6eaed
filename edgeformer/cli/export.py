"""``edgeformer export``: PyTorch to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeformer.cli._common import common_options, console, output_file, print_json, status
from edgeformer.cli._models import model_options


@click.command("export")
@model_options
@click.option("--static-batch", type=click.IntRange(min=1), metavar="N", help="Fix the batch.  [default: left free]")
@click.option("--opset", type=int, help="ONNX operator set, at least 18.  [default: 20]")
@click.option("--output", "-o", type=output_file, required=True, help="The ONNX file.")
@common_options
def command(static_batch: int | None, opset: int | None, output: Path, as_json: bool, **options: Any) -> None:
    """Export MODEL, a name of 'edgeformer models', to ONNX and compare it with PyTorch in ONNX Runtime."""
    from edgeformer.pipeline import export_model

    with status.status("exporting"):
        exported = export_model(output=output, static_batch=static_batch, opset=opset, **options)
    nodes, size = len(exported.model.graph.node), output.stat().st_size
    if as_json:
        figures = {name: comparison.to_dict() for name, comparison in exported.figures.items()}
        verdict = exported.verdict.to_dict()
        print_json({"output": str(output), "nodes": nodes, "bytes": size, "figures": figures, "verdict": verdict})
        return
    console.print(f"{output}: {nodes} nodes, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    console.print(f"against PyTorch: {exported.verdict.text}", highlight=False)
