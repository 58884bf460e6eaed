"""The ranking of layers by sensitivity as a picture of its own, SVG or PNG, and as a table for other programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgeformer.artifacts import write_bytes, write_text
from edgeformer.errors import InputError
from edgeformer.records.sensitivity import LayerSensitivity, SensitivityReport
from edgeformer.report.charts import drawing, plain_label

__all__ = ["FORMATS", "check_plot", "write_csv", "write_plot"]

FORMATS = (".svg", ".png")
_CLEAN, _DEGRADED, _COST = "#1f6fb2", "#c4492a", "#6b7280"
# Inches, of the whole, of a layer's line, and of what stands above and below.
_WIDTH, _LINE_HEIGHT, _MARGINS = 9.0, 0.22, 1.1
# PNGs of thousands of layers would be refused by viewers; so many of the first are drawn.
_MOST_LAYERS = 300
_DPI = 150


def check_plot(path: Path) -> None:
    """Find out, before any work, whether `write_plot` can write ``path``.

    Raises:
        InputError: it has another ending than .svg and .png.
        EnvironmentFault: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError("EF101", f"plot {path}: the name must end in {' or '.join(FORMATS)}")
    with drawing((1.0, 1.0)):
        pass


def write_plot(report: SensitivityReport, path: Path) -> None:
    """Draw the ranking: the SNR that each layer alone leaves, and its share of the multiply-adds.

    Args:
        report: what was measured.
        path: a file whose name ends in .svg or .png.

    Raises:
        InputError: it has another ending.
        EnvironmentFault: matplotlib is not installed.
        OSError: it cannot be written.
    """
    check_plot(path)
    layers = report.layers[:_MOST_LAYERS]
    rows = range(len(layers))
    with drawing((_WIDTH, _MARGINS + _LINE_HEIGHT * len(layers))) as figure:
        figure.patch.set(visible=True, facecolor="white")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        kinds = [("clean", _CLEAN, [layer.snr_clean_db for layer in layers])]
        degraded = [layer.snr_degraded_db for layer in layers if layer.snr_degraded_db is not None]
        if len(degraded) == len(layers):
            kinds.append(("degraded", _DEGRADED, degraded))
        for name, colour, values in kinds:
            left.plot(values, rows, "o", color=colour, markersize=4.5, label=name)
        left.hlines(rows, *left.get_xlim(), color="#e5e7eb", linewidth=0.8, zorder=0)
        left.set_yticks(rows, [_label(number, layer) for number, layer in enumerate(layers, 1)])
        left.set_ylim(len(layers) - 0.4, -0.6)
        left.set_xlabel("SNR of the outputs, this layer alone in INT8 (dB)")
        shares = [100 * (report.share(layer) or 0.0) for layer in layers]
        right.barh(rows, shares, color=_COST, height=0.6)
        right.set_xlabel("multiply-adds (%)")
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        stream = io.BytesIO()
        svg = path.suffix.lower() == ".svg"
        figure.savefig(
            stream, format="svg" if svg else "png", dpi=_DPI, metadata={"Date": None} if svg else {"Software": None}
        )
    write_bytes(path, stream.getvalue())


def _label(number: int, layer: LayerSensitivity) -> str:
    return f"{plain_label(layer.node, 44)}  {number}"


def write_csv(report: SensitivityReport, path: Path) -> None:
    """Write the ranking as comma-separated values, a line a layer, with names of the columns.

    Raises:
        OSError: it cannot be written.
    """
    rows = report.rows()
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
