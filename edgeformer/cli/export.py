"""``edgeformer export``: PyTorch to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeformer.cli._common import common_options, console, print_json, status, timeout_option
from edgeformer.cli._options import options_from, output_file, preprocessing_file
from edgeformer.pipeline.request import ExportRequest


@click.command("export")
@click.argument("model")
@click.option("--output", "-o", type=output_file, required=True, help="The ONNX file.")
@options_from(ExportRequest)
@timeout_option
@common_options
def command(model: str, output: Path, as_json: bool, **options: Any) -> None:
    """Export a named model to ONNX and compare it with PyTorch.

    MODEL is a name; 'edgeformer models' lists them. The comparison runs in ONNX Runtime.
    """
    from edgeformer.pipeline import export_model
    from edgeformer.pipeline.conflicts import check_inputs_stay

    check_inputs_stay(output, preprocessing=preprocessing_file())
    with status.status("exporting"):
        exported = export_model(model, output=output, **options)
    nodes, size = len(exported.model.graph.node), output.stat().st_size
    if as_json:
        figures = {name: comparison.model_dump(mode="json") for name, comparison in exported.figures.items()}
        verdict = exported.verdict.model_dump(mode="json")
        print_json(
            {
                "output": str(output),
                "nodes": nodes,
                "bytes": size,
                "figures": figures,
                "verdict": verdict,
                "checkpoint_key": exported.checkpoint_key,
            }
        )
        return
    console.print(f"{output}: {nodes} nodes, {size / 1e6:.1f} MB", soft_wrap=True)
    console.print(f"against PyTorch: {exported.verdict.text}")
