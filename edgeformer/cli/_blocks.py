"""What ``edgeformer verify --per-block`` prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeformer.cli._common import console, error_document, print_error, print_json, progress, simple_table
from edgeformer.errors import GateMissed

if TYPE_CHECKING:
    from edgeformer.records.blocks import BlockCheck, BlocksReport, FormBlocks
    from edgeformer.records.verification import GateVerdict

__all__ = ["print_blocks", "verify_per_block"]

# Nodes before a wrong one that a line lists: the nearest.
_LISTED = 6


def verify_per_block(bundle: Path, *, as_json: bool, **options: Any) -> None:
    """Run per-block parity on a bundle and print the report.

    Args:
        bundle: folder of the bundle.
        as_json: print one JSON document.
        options: as `edgeformer.pipeline.verify_bundle_blocks` takes them.

    Raises:
        GateMissed: a form goes wrong; with ``as_json`` the document holds it and the command exits.
    """
    from edgeformer.bundle import read_manifest
    from edgeformer.bundle.contents import unlisted_files, unlisted_line
    from edgeformer.pipeline import verify_bundle_blocks
    from edgeformer.verify.blocks.verification import require_blocks

    with progress(quiet=as_json) as bar:
        task = bar.add_task("blocks", total=None)

        def tell(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        report = verify_bundle_blocks(bundle, **options, progress=tell)
    unlisted = unlisted_files(bundle, set(read_manifest(bundle).files))
    document = {
        "passed": report.passed,
        "not_run": list(report.not_run),
        "unlisted": list(unlisted),
        **report.model_dump(mode="json"),
    }
    if not as_json:
        print_blocks(report)
        if unlisted:
            console.print(unlisted_line(unlisted), soft_wrap=True)
    try:
        require_blocks(report)
    except GateMissed as missed:
        if not as_json:
            raise
        # One document, with the figures and the error in it.
        print_json({**document, "error": error_document(missed)})
        print_error(missed)
        raise click.exceptions.Exit(missed.exit_code) from None
    if as_json:
        print_json(document)


def print_blocks(report: BlocksReport) -> None:
    """Print a table for each form that was compared, with a row for each block, and what goes wrong below it."""
    for form in report.forms:
        if form.blocks:
            _print_form(form)
        elif form.status != "reference":
            console.print(form.text, soft_wrap=True)
    console.print(
        f"{report.samples} images; SNR alone: a block of both forms on the same inputs and routing; "
        "SNR so far: each form on what it made itself",
    )


def _print_form(form: FormBlocks) -> None:
    from edgeformer.bundle.figures import percent

    console.print(f"{form.name} against {form.against}: {form.status}")
    table = simple_table("block", "verdict", "SNR alone", "SNR so far", "routing", "worst result")
    for block in form.blocks:
        table.add_row(
            block.name,
            "" if form.status == "not judged" else "passed" if block.passed else "WRONG",
            _decibels(block.isolated_snr_db),
            _decibels(block.accumulated_snr_db),
            "" if block.routing_agreement is None else percent(100 * block.routing_agreement),
            "" if block.verdict is None else _judged(block.verdict),
        )
    console.print(table)
    for block in form.blocks:
        _print_faults(block)
    if form.status == "not judged":
        console.print(form.text, soft_wrap=True)


def _print_faults(block: BlockCheck) -> None:
    for number, fault in enumerate(block.faults):
        listed = ", ".join(fault.between[-_LISTED:])
        before = f" (or what stands before it: {'..., ' if len(fault.between) > _LISTED else ''}{listed})"
        lead = f"{block.name}: " if number == 0 else "  then "
        console.print(f"{lead}{fault.text}{before if fault.between else ''}", soft_wrap=True)


def _judged(verdict: GateVerdict) -> str:
    return f"{verdict.value:.2g} {'<=' if verdict.passed else '>'} {verdict.limit:g}"


def _decibels(value: float | None) -> str:
    from edgeformer.bundle.figures import decibels

    if value is None:
        return ""
    return "equal" if math.isinf(value) and value > 0 else decibels(value)
