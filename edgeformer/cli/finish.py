"""``edgeformer finish``: on the machine that a bundle is for, build its engine, compare it and time it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeformer.cli._common import common_options, console, print_json, timeout_option
from edgeformer.cli._options import output_path
from edgeformer.cli._progress import StageProgress
from edgeformer.errors import InputError


@click.command("finish")
@click.argument("bundle", type=output_path)
@click.option(
    "--workspace",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Limit of TensorRT's workspace.  [default: what the bundle was built with; less where memory runs out]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    help="Time of timed runs.  [default: 3; with --autotune 10 for each engine]",
)
@click.option(
    "--autotune",
    is_flag=True,
    help="Build INT8, FP16 and what else the bundle brings, and keep the fastest engine that meets its gate.",
)
@click.option("--no-latency", is_flag=True, help="Do not time the engine.")
@click.option("--trust-bundle", is_flag=True, help="Run what it brings: you trust whoever made it.")
@click.option("--key", type=output_path, help="Public key of its maker (PEM, Ed25519): the signature has to hold.")
@timeout_option
@common_options
def command(
    bundle: Path,
    workspace: int | None,
    seconds: float | None,
    no_latency: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Finish a bundle on the machine that it is for.

    An engine for a Jetson is built on the Jetson. There, this command checks JetPack, TensorRT, memory and power mode,
    builds the engine from the bundle's files, and compares its outputs with those that the build recorded. The bundle
    is replaced by the finished one when that is whole. A missed gate exits with code 3. Then the engine is timed for a
    few seconds, and the figures go into the manifest, as those of 'edgeformer bench' do; where it cannot be timed, the
    manifest says why.

    If the machine stops in between, run it again: an engine that was built is taken. It needs TensorRT, and neither
    torch nor onnx. In a bundle for a device, the script 'finish' runs it with what the bundle brings.
    """
    from edgeformer.bundle.files import SIGNATURE
    from edgeformer.pipeline.finishing import finish_bundle

    if no_latency and (seconds is not None or options["autotune"]):
        other = "--autotune" if options["autotune"] else "--seconds"
        raise InputError("EF104", f"--no-latency with {other}: leave one of them out")
    if seconds is not None or no_latency:
        options["latency_seconds"] = seconds or 0.0
    signed = (bundle / SIGNATURE).is_file()
    with StageProgress(quiet=as_json) as observer:
        result = finish_bundle(
            bundle, workspace_bytes=None if workspace is None else workspace << 20, observer=observer, **options
        )
    if as_json:
        print_json(
            {"bundle": str(result.path), "seconds": round(result.seconds, 3), **result.manifest.model_dump(mode="json")}
        )
        return
    from edgeformer.bundle.details import DeviceDetails
    from edgeformer.cli._summary import print_next_steps, print_summary

    print_summary(console, result.path, result.manifest, result.seconds)
    details = result.manifest.details(DeviceDetails)
    for fault in () if details is None else details.faults:
        console.print(f"  ! {fault}", soft_wrap=True)
    if signed:
        console.print("  ! the signature was of the bundle as it came: sign it again (edgeformer sign)", soft_wrap=True)
    print_next_steps(console, result.path, result.manifest)
