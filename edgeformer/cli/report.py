"""``edgeformer report``: one page on a bundle, or several side by side."""

from __future__ import annotations

from pathlib import Path

import click

from edgeformer.cli._common import common_options, console, print_json
from edgeformer.cli._options import output_path
from edgeformer.errors import InputError


@click.command("report")
@click.argument("bundles", nargs=-1, type=output_path, metavar="BUNDLE...")
@click.option("--output", "-o", type=output_path, help="The page.  [default: report.html in the bundle]")
@common_options
def command(bundles: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Write what is known of a bundle on one HTML page, or set several bundles side by side.

    The page is made from the manifest: verdict and next step, stages with their gates, the network block by block,
    accuracy, routing with pictures of where regions look, calibration, versions and hashes. It needs nothing besides
    itself and loads nothing. 'edgeformer build' puts one into each bundle.
    """
    from edgeformer.bundle import open_bundle
    from edgeformer.outputs import check_not_an_input, check_output
    from edgeformer.report import compare_bundles, write_report

    if not bundles:
        raise InputError("EF103", "report needs a BUNDLE: the folder that `edgeformer build` made")
    if len(bundles) > 1 and output is None:
        raise InputError(
            "EF103", f"a page on {len(bundles)} bundles is no part of one of them: name it with -o page.html"
        )
    if output is not None:
        check_output(output)
        listed = [("bundle's file", bundle / name) for bundle in bundles for name in _files(bundle)]
        check_not_an_input(output, listed)
    for bundle in bundles:
        open_bundle(bundle)
    page = compare_bundles(bundles, output) if output is not None and len(bundles) > 1 else None
    page = page or write_report(bundles[0], output)
    if as_json:
        print_json({"bundles": [str(bundle) for bundle in bundles], "page": str(page), "bytes": page.stat().st_size})
    else:
        console.print(f"written: {page}", soft_wrap=True)


def _files(bundle: Path) -> tuple[str, ...]:
    """What a bundle's manifest lists, and the manifest with its signature."""
    from edgeformer.bundle import read_manifest
    from edgeformer.bundle.files import MANIFEST, SIGNATURE

    return (MANIFEST, SIGNATURE, *read_manifest(bundle).files)
