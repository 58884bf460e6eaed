"""``edgeformer build``: the main job, from a trained model to a parity-checked engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeformer.cli._common import calibration_options, common_options, console, lepe_option, output_path, print_json
from edgeformer.cli._models import model_options
from edgeformer.cli._progress import StageProgress


@click.command("build")
@model_options
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp16",
    show_default=True,
    help="Type of the engine's weights and activations.",
)
@click.option("--target", required=True, help="Machine the engine is for; 'edgeformer targets' lists them.")
@calibration_options
@click.option(
    "--eval-data",
    type=output_path,
    help="Labelled images to measure accuracy on: a sub-folder a class, or an .npz file.",
)
@click.option("--batch", metavar="N|MIN:OPT:MAX", help="Batch sizes the engine serves.  [default: 1, or the graph's]")
@click.option(
    "--max-drop", type=click.FloatRange(min=0), help="Points of top-1 accuracy that INT8 may lose.  [default: 1]"
)
@click.option("--plugin/--no-plugin", default=True, help="Put the fused plugin into the engine.  [default: plugin]")
@click.option(
    "--embed-plugin", is_flag=True, help="Put the plugin library into the engine file, so that this one file is enough."
)
@click.option(
    "--compare-plugin/--no-compare-plugin",
    default=None,
    help="Build the engine without the plugin, too, and tell what it saves.  [default: where TensorRT-RTX builds]",
)
@lepe_option
@click.option(
    "--linears-as-convolutions/--no-linears-as-convolutions",
    default=None,
    help="Write Linears as 1 x 1 convolutions, for less memory at free batch sizes.  "
    "[default: where TensorRT-RTX builds for those, INT8 apart]",
)
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Limit of TensorRT's workspace, in MiB.")
@click.option(
    "--aux-streams",
    "max_aux_streams",
    type=click.IntRange(min=0),
    metavar="N",
    help="Streams for branches beside the main one; 0 takes the least memory.  [default: TensorRT's choice]",
)
@click.option("--output", "-o", type=output_path, required=True, help="Folder of the bundle.")
@common_options
def command(
    model: str,
    target: str,
    precision: Any,
    data: Path | None,
    eval_data: Path | None,
    recipe: str,
    workspace: int | None,
    plugin: bool,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Build a bundle: MODEL, a name ('edgeformer models') or an .onnx file, becomes a checked engine.

    Every stage is compared with the one before. A stage that misses its gate ends the build with exit code 3 and
    publishes nothing. A second build into the same bundle reuses the stages whose inputs did not change.
    """
    from edgeformer.pipeline import build

    with StageProgress(quiet=as_json) as observer:
        result = build(
            model,
            target=target,
            precision=precision,
            data=data,
            eval_data=eval_data,
            recipe=recipe if precision == "int8" else None,
            use_plugin=plugin,
            workspace_bytes=None if workspace is None else workspace << 20,
            output=output,
            observer=observer,
            **options,
        )
    if as_json:
        print_json({"bundle": str(result.path), "seconds": round(result.seconds, 3), **result.manifest.model_dump()})
        return
    from edgeformer.cli._summary import print_summary

    print_summary(console, result.path, result.manifest, result.seconds)
