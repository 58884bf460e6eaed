"""``edgeformer verify``: run every form of the model in a bundle and judge each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeformer.cli._common import (
    common_options,
    console,
    error_document,
    print_error,
    print_json,
    progress,
    simple_table,
    timeout_option,
)
from edgeformer.cli._options import existing_file, output_path
from edgeformer.errors import GateMissed, InputError

if TYPE_CHECKING:
    from edgeformer.records.verification import Comparison, VerifyReport


@click.command("verify")
@click.argument("bundle", type=output_path)
@click.option("--data", type=output_path, help="Images; labelled ones give accuracy.  [default: the recorded ones]")
@click.option("--checkpoint", type=existing_file, help="Where the bundle's checkpoint lies now, if it was moved.")
@click.option("--labels", type=existing_file, help="Names of the classes in order, for the folders of --data.")
@click.option("--max-drop", type=click.FloatRange(min=0), help="Points of accuracy INT8 may lose.  [default: 1]")
@click.option("--trust-bundle", is_flag=True, help="Run its engine and plugin library: you trust whoever made it.")
@click.option("--key", type=output_path, help="Public key of its maker (PEM, Ed25519): the signature has to hold.")
@click.option("--save-outputs", type=output_path, help="Folder for Polygraphy's files: each form's first outputs.")
@click.option("--per-block", is_flag=True, help="Block by block: where a form goes wrong first, and in which node.")
@timeout_option
@common_options
def command(bundle: Path, as_json: bool, per_block: bool, **options: Any) -> None:
    """Compare all forms of the model that a bundle holds.

    First the files are checked against their hashes. Then PyTorch, the exported, fused and typed ONNX files, and the
    engine where a GPU is, are each compared with the one before and with the first. A missed gate exits with code 3.
    What cannot run here is reported as not run, never as passed.

    An engine and its plugin library are code. They run where --trust-bundle says so, or where the signature of
    'edgeformer sign' holds for --key. Files that the manifest does not list are named and never loaded.

    With --per-block each block of a form runs on what the form before makes of the same eight images, and so does every
    result within it that both have. The first block that goes wrong is named, and the node in it. An error of rounding,
    and a near tie in routing, is none.
    """
    if per_block:
        _verify_per_block(bundle, as_json, options)
        return
    from edgeformer.bundle import read_manifest
    from edgeformer.bundle.contents import unlisted_files
    from edgeformer.pipeline import verify_bundle
    from edgeformer.verify import require

    with progress(quiet=as_json) as bar:
        task = bar.add_task("images", total=None)
        report = verify_bundle(bundle, **options, progress=lambda n: bar.advance(task, n))
    unlisted = unlisted_files(bundle, set(read_manifest(bundle).files))
    key = options["key"]
    try:
        require(report)
    except GateMissed as missed:
        if not as_json:
            _print(report, unlisted, key)
            raise
        # One document, with the figures and the error in it.
        print_json({**_document(report, unlisted), "error": error_document(missed)})
        print_error(missed)
        raise click.exceptions.Exit(missed.exit_code) from None
    if as_json:
        print_json(_document(report, unlisted))
    else:
        _print(report, unlisted, key)


def _verify_per_block(bundle: Path, as_json: bool, options: dict[str, Any]) -> None:
    from edgeformer.cli._blocks import verify_per_block

    unused = [
        f"--{name.replace('_', '-')}"
        for name in ("labels", "max_drop", "save_outputs")
        if options.pop(name) is not None
    ]
    if unused:
        raise InputError(
            "EF961", f"--per-block judges blocks and takes no {' or '.join(unused)}: leave out one of the two"
        )
    verify_per_block(bundle, as_json=as_json, **options)


def _document(report: VerifyReport, unlisted: tuple[str, ...]) -> dict[str, Any]:
    """The report as JSON, what follows from it included."""
    return {
        "passed": report.passed,
        "not_run": list(report.not_run),
        "unlisted": list(unlisted),
        **report.model_dump(mode="json"),
    }


def _print(report: VerifyReport, unlisted: tuple[str, ...] = (), key: Path | None = None) -> None:
    from edgeformer.bundle.contents import unlisted_line
    from edgeformer.bundle.figures import percent, score_text

    outputs = next((list(form.first) for form in report.forms if form.first is not None), [])
    headers = ["form", "verdict", "SNR", "max |diff|", "top-1", "equal", "routing", "accuracy"]
    rows: list[list[str]] = []
    for form in report.forms:
        routing = "" if form.routing_first is None else percent(100 * form.routing_first.agreement)
        figures = _figures(form.first[outputs[0]]) if form.first is not None and len(outputs) == 1 else [""] * 4
        rows.append([form.name, form.status, *figures, routing, score_text(form.accuracy)])
        if len(outputs) > 1:
            rows += [[f"  {name}", "", *_figures(found), "", ""] for name, found in (form.first or {}).items()]
    # Only models with integer outputs have anything to say about equal elements.
    kept = [index for index, name in enumerate(headers) if name != "equal" or any(row[index] for row in rows)]
    table = simple_table(*(headers[index] for index in kept))
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    console.print(table)
    console.print(
        f"{report.samples} images; figures against {report.forms[0].name}; top-1 and routing: how much agrees",
    )
    for form in report.forms:
        if form.text:
            console.print(form.text if form.status == "not run" else f"{form.name}: {form.text}")
    if key is not None:
        console.print(f"the signature holds for {key}", soft_wrap=True)
    if unlisted:
        console.print(unlisted_line(unlisted), soft_wrap=True)


def _figures(output: Comparison) -> list[str]:
    """SNR, greatest difference, top-1 and integer agreement; empty where the output has no such figure."""
    from edgeformer.bundle.figures import decibels, percent

    return [
        "" if output.snr_db is None else decibels(output.snr_db),
        "" if output.max_abs is None else f"{output.max_abs:.1e}",
        "" if output.top1_agreement is None else percent(100 * output.top1_agreement),
        "" if output.integer_agreement is None else percent(100 * output.integer_agreement),
    ]
