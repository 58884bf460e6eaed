"""The page on one bundle."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.bundle.details import EngineDetails, ParityDetails, QuantizeDetails
from edgeformer.bundle.figures import attention_line, decibels, forms_of, megabytes, percent, snr_db, stage_time
from edgeformer.bundle.manifest import Manifest
from edgeformer.bundle.next_steps import next_steps
from edgeformer.bundle.report_file import MANIFEST_HASH
from edgeformer.errors import EnvironmentFault
from edgeformer.records.quantization import ActivationRecord
from edgeformer.report import content
from edgeformer.report.candidates import candidates_content
from edgeformer.report.charts import Bar, histogram_chart, snr_chart
from edgeformer.report.latency import latency_content
from edgeformer.report.sample import sample_picture
from edgeformer.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Subject", "bundle_page", "environment"]

# Histograms that are drawn; all are listed. More would make the page slow, and nobody would look at them.
_DRAWN = 48
# In one plot, of which a screen shows two side by side.
_IN_A_PLOT = 12


@dataclass(frozen=True)
class Subject:
    """A bundle that a page is about.

    Attributes:
        path: its folder.
        name: what the page calls it.
        manifest: its manifest.
        sha256: of the manifest's file.
    """

    path: Path
    name: str
    manifest: Manifest
    sha256: str


def bundle_page(subject: Subject) -> str:
    """The page on a bundle: HTML with all that it needs in it.

    Raises:
        InputError: the bundle contradicts its manifest.
        EnvironmentFault: jinja2 or matplotlib is not installed.
    """
    manifest = subject.manifest
    forms = forms_of(manifest)
    parity, engine = manifest.details(ParityDetails), manifest.details(EngineDetails)
    steps = next_steps(Path(subject.name), manifest)
    return (
        environment()
        .get_template("bundle.html")
        .render(
            subject=subject,
            manifest=manifest,
            hashes=subject.sha256,
            title=f"{manifest.model.name} · {manifest.precision.upper()} · {manifest.target.name}",
            verdict=content.verdict_of(manifest),
            steps=steps,
            left_to_do=() if engine is None else engine.left_to_do,
            figures=content.key_figures(manifest),
            blocks=content.block_rows(manifest),
            snr_plot=_snr_plot(manifest),
            parity=parity,
            accuracy=content.accuracy_rows(manifest),
            attention=attention_line(manifest),
            forms=[form for form in forms.values() if form.status != "reference"],
            candidates=candidates_content(manifest),
            latency=latency_content(manifest),
            routing=content.routing_rows(forms.get("typed")),
            agreement=forms["typed"].routing_first if "typed" in forms else None,
            looks=_looks(subject),
            **_calibration(manifest),
            engine=None if engine is None else engine.report,
            plugin_rows=content.comparison_rows(manifest),
        )
    )


def _snr_plot(manifest: Manifest) -> str:
    """The SNR part by part; nothing where it was not measured."""
    parity = manifest.details(ParityDetails)
    blocks = () if parity is None else parity.blocks
    if not any(block.snr_db is not None for block in blocks):
        return ""
    return snr_chart([Bar(b.name, b.snr_db, b.op is not None) for b in blocks], "SNR against the float graph, dB")


def _looks(subject: Subject) -> dict[str, Any] | None:
    """The pictures of where regions look: the image, and for each region what is dark in each form."""
    parity = subject.manifest.details(ParityDetails)
    picture = None if parity is None else parity.routing
    if picture is None:
        return None
    shape = subject.manifest.application.image
    return {
        "image": sample_picture(subject.path, subject.manifest, picture.sample),
        "ratio": 1.0 if shape is None else shape.width / shape.height,
        "blocks": [
            {
                "name": content.place_of(block.stage, block.block),
                "side": block.side,
                "changed": block.changed,
                "queries": block.queries,
            }
            for block in picture.blocks
        ],
    }


def _calibration(manifest: Manifest) -> dict[str, Any]:
    """The activations that quantized layers read, those that are clipped most first, and the drawn ones among them."""
    details = manifest.details(QuantizeDetails)
    activations = [] if details is None else sorted(details.activations, key=_clipped, reverse=True)
    seen = [one for one in activations if one.histogram is not None and any(one.histogram.counts)]
    return {
        "activations": activations,
        "drawn": min(len(seen), _DRAWN),
        "histogram_plots": [
            histogram_chart(seen[start : min(start + _IN_A_PLOT, _DRAWN)], f"hist{start}")
            for start in range(0, min(len(seen), _DRAWN), _IN_A_PLOT)
        ],
    }


def _clipped(activation: ActivationRecord) -> float:
    return 0.0 if activation.histogram is None else activation.histogram.clipped


@functools.cache
def environment() -> Environment:
    """What renders our templates: everything that is not ours is escaped, and what is missing is an error.

    Raises:
        EnvironmentFault: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", f"the report needs jinja2 ({error}): pip install 'edgeformer[report]'"
        ) from error

    def finalize(value: Any) -> Any:
        # Names may hold what no page may: control characters, and marks that reverse the direction of writing.
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=PackageLoader("edgeformer.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(manifest_hash=MANIFEST_HASH)
    made.filters.update(
        cells=cells,
        decibels=decibels,
        megabytes=megabytes,
        percent=percent,
        snr_db=snr_db,
        stage_time=stage_time,
        symbol=_SYMBOLS.__getitem__,
    )
    return made


# A sign beside each verdict: colour alone would not tell them apart to everybody.
_SYMBOLS = {"passed": "✓", "missed": "✗", "open": "○", "not run": "○", "not judged": "–", "reference": "–"}


def cells(regions: Iterable[int], side: int, inset: float = 0.0) -> str:
    """Regions of a grid as the data of an SVG path.

    Args:
        regions: their numbers, counted row by row.
        side: regions in a row.
        inset: how far the outline lies within the region, whose sides are 1.
    """
    size = f"{1 - 2 * inset:g}"
    return "".join(
        f"M{region % side + inset:g} {region // side + inset:g}h{size}v{size}h-{size}z" for region in regions
    )
