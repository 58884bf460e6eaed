"""``edgeformer sensitivity``: which layers of a model suffer from INT8, and what it costs to leave them in float."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeformer.cli._common import common_options, console, print_json, progress, simple_table, timeout_option
from edgeformer.cli._options import options_from, output_file, preprocessing_file
from edgeformer.pipeline.sensitivity import SensitivityRequest

if TYPE_CHECKING:
    from edgeformer.records.sensitivity import SensitivityReport

_log = logging.getLogger(__name__)


@click.command("sensitivity")
@click.argument("model")
@options_from(SensitivityRequest)
@click.option(
    "--resume",
    type=output_file,
    metavar="FILE",
    help="Keep what is measured in this file, and go on from it where it exists.",
)
@click.option("--plot", type=output_file, metavar="FILE", help="Draw the ranking: a name that ends in .svg or .png.")
@click.option("--csv", "table", type=output_file, metavar="FILE", help="Write the ranking as comma-separated values.")
@timeout_option
@common_options
def command(
    model: str, resume: Path | None, plot: Path | None, table: Path | None, as_json: bool, **options: Any
) -> None:
    """Rank a model's layers by what each does alone in INT8.

    MODEL is a name ('edgeformer models' lists them), an .onnx file or a bundle. Each layer that the recipe quantizes is
    put into INT8, all others stay in float, and the network's outputs are compared with the float model's, on clean and
    on degraded images; the worse counts. Beside it stand the layer's multiply-adds, which INT8 makes cheaper, and the
    noise for each million of them: where that is highest, a layer left in float buys most for what it costs.
    """
    from edgeformer.pipeline.conflicts import check_inputs_stay
    from edgeformer.pipeline.sensitivity import measure_sensitivity
    from edgeformer.report.sensitivity import check_plot, write_csv, write_plot

    request = SensitivityRequest(model, resume=resume, **options)
    files = {"state": resume, "plot": plot, "table": table}
    for name, path in files.items():
        if path is not None:
            others: dict[str, Any] = {other: files[other] for other in files if other != name}
            others |= {given: options[given] for given in ("data", "recipe", "checkpoint")}
            check_inputs_stay(path, model, preprocessing=preprocessing_file(), **others)
    if plot is not None:
        check_plot(plot)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("sensitivity", total=None)
        try:
            report = measure_sensitivity(
                request,
                progress=lambda text, done, total: bar.update(task, description=text, completed=done, total=total),
            )
        except (KeyboardInterrupt, SystemExit):
            if resume is not None and resume.exists():
                _log.warning("%s keeps what was measured: the same command goes on from there", resume)
            raise
    if plot is not None:
        write_plot(report, plot)
    if table is not None:
        write_csv(report, table)
    if as_json:
        print_json({**report.model_dump(mode="json"), "layers": report.rows()})
    else:
        _print(report)


def _print(report: SensitivityReport) -> None:
    table = simple_table("layer", "op", "clean", "degraded", "mult-adds", "share", "noise/M")
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for layer in report.layers:
        share, cost = report.share(layer), layer.noise_per_million_db
        table.add_row(
            layer.node,
            layer.op,
            f"{layer.snr_clean_db:.1f} dB",
            "" if layer.snr_degraded_db is None else f"{layer.snr_degraded_db:.1f} dB",
            "not known" if layer.multiply_adds is None else f"{layer.multiply_adds / 1e6:.3f} M",
            "" if share is None else f"{100 * share:.1f} %",
            "" if cost is None else f"{cost:.1f} dB",
        )
    console.print(table)
    shares = [report.share(layer) for layer in report.layers]
    known = [share for share in shares if share is not None]
    quantized = f", {100 * sum(known):.1f} % of the multiply-adds" if len(known) == len(shares) else ""
    console.print(
        f"{len(report.layers)} layers that recipe {report.recipe!r} quantizes{quantized}; the SNR that each "
        f"alone in INT8 leaves on {report.images} images, the worse first; noise for each million multiply-adds",
        soft_wrap=True,
    )
