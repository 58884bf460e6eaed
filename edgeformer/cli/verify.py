"""``edgeformer verify``: run every form of the model in a bundle side by side and judge each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeformer.cli._common import common_options, console, print_json, progress, simple_table
from edgeformer.cli._options import existing_file, output_path
from edgeformer.errors import GateMissed

if TYPE_CHECKING:
    from edgeformer.verify import VerifyReport


@click.command("verify")
@click.argument("bundle", type=output_path)
@click.option("--data", type=output_path, help="Images; labelled ones give accuracy.  [default: the recorded ones]")
@click.option("--checkpoint", type=existing_file, help="Where the bundle's checkpoint lies now, if it was moved.")
@click.option("--max-drop", type=click.FloatRange(min=0), help="Points of accuracy INT8 may lose.  [default: 1]")
@common_options
def command(bundle: Path, data: Path | None, checkpoint: Path | None, max_drop: float | None, as_json: bool) -> None:
    """Verify BUNDLE: its files' hashes, then PyTorch, exported, fused and typed ONNX, and the engine where a GPU is.

    Each is compared with the one before and with the first. A missed gate exits with code 3. What cannot run here is
    reported as not run, never as passed.
    """
    from edgeformer.pipeline import verify_bundle
    from edgeformer.verify import require

    with progress(quiet=as_json) as bar:
        task = bar.add_task("images", total=None)
        report = verify_bundle(
            bundle, data=data, checkpoint=checkpoint, max_drop=max_drop, progress=lambda n: bar.advance(task, n)
        )
    try:
        require(report)
    except GateMissed as missed:
        if not as_json:
            _print(report)
            raise
        # One document, with the figures and the error in it.
        print_json({**report.to_dict(), "error": {"kind": "GateMissed", "message": str(missed)}})
        click.echo(f"error: {missed}", err=True)
        raise click.exceptions.Exit(missed.exit_code) from None
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)


def _print(report: VerifyReport) -> None:
    from edgeformer.verify import worst

    table = simple_table("form", "verdict", "SNR", "max |diff|", "top-1", "routing", "accuracy")
    for form in report.forms:
        cells = [form.name, form.status, "", "", "", "", ""]
        if form.first is not None:
            figures = worst(form.first)
            cells[2] = f"{figures.snr_db:.1f} dB"
            cells[3] = f"{figures.max_abs:.1e}"
            cells[4] = "" if figures.top1_agreement is None else f"{100 * figures.top1_agreement:.2f} %"
        if form.routing_first is not None:
            cells[5] = f"{100 * form.routing_first.agreement:.2f} %"
        if form.accuracy is not None:
            cells[6] = f"{form.accuracy.points:.2f} %"
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"{report.samples} images; figures against {report.forms[0].name}; top-1 and routing: how much agrees",
        highlight=False,
    )
    for form in report.forms:
        if form.text:
            console.print(form.text if form.status == "not run" else f"{form.name}: {form.text}", highlight=False)
