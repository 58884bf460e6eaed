"""``edgeformer build``: the main job, from a trained model to a parity-checked engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeformer.cli._common import common_options, console, print_json, timeout_option
from edgeformer.cli._options import options_from, output_folder, preprocessing_file
from edgeformer.cli._progress import StageProgress
from edgeformer.pipeline.request import BuildRequest


@click.command("build")
@click.argument("model")
@click.option("--target", required=True, help="Machine the engine is for; 'edgeformer targets' lists them.")
@click.option("--output", "-o", type=output_folder, required=True, help="Folder of the bundle.")
@options_from(BuildRequest)
@timeout_option
@common_options
def command(model: str, output: Path, as_json: bool, **options: Any) -> None:
    """Build a bundle with a checked engine from a model.

    MODEL is a name ('edgeformer models' lists them) or an .onnx file.

    Every stage is compared with the one before. A stage that misses its gate ends the build with exit code 3 and
    publishes nothing. A second build into the same bundle reuses the stages whose inputs did not change.
    """
    from edgeformer.pipeline import build
    from edgeformer.pipeline.conflicts import check_inputs_stay

    check_inputs_stay(output, folder=True, preprocessing=preprocessing_file())
    with StageProgress(quiet=as_json) as observer:
        result = build(model, output=output, observer=observer, **options)
    if as_json:
        print_json(
            {"bundle": str(result.path), "seconds": round(result.seconds, 3), **result.manifest.model_dump(mode="json")}
        )
        return
    from edgeformer.cli._summary import print_next_steps, print_summary

    print_summary(console, result.path, result.manifest, result.seconds)
    print_next_steps(console, result.path, result.manifest)
