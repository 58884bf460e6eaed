"""How long the model takes, as a page shows it: what `edgeformer bench` wrote into the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeformer.bundle.details import LatencyDetails
from edgeformer.bundle.manifest import Manifest
from edgeformer.records.latency import LatencyComparison, LatencyFigures, LatencyReport, Percentile, TimeDistribution
from edgeformer.report.charts import Line, times_chart

__all__ = ["LatencyContent", "LatencyRow", "latency_content", "milliseconds", "timed"]

_TIMINGS = {"end_to_end": "end to end", "gpu": "GPU"}


@dataclass(frozen=True)
class LatencyRow:
    """Times of one kind of one model at one batch; ``own`` where it is the bundle's."""

    name: str
    timing: str
    batch: int
    p50: str
    p90: str
    p99: str
    longest: str
    spread: str
    samples: int
    own: bool


@dataclass(frozen=True)
class LatencyContent:
    """The section on latency.

    Attributes:
        where: what measured, and when.
        advice: which model to ship; empty where one was measured alone.
        verdicts: of each comparison, a line each.
        rows: the times.
        plots: for each batch its number and the times as SVG.
        remarks: what to know besides.
    """

    where: str
    advice: str
    verdicts: tuple[str, ...]
    rows: tuple[LatencyRow, ...]
    plots: tuple[tuple[int, str], ...]
    remarks: tuple[str, ...]


def latency_content(manifest: Manifest) -> LatencyContent | None:
    """What the manifest has of latency; None where nothing was measured.

    Raises:
        EnvironmentFault: matplotlib is not installed.
    """
    details = manifest.details(LatencyDetails)
    if details is None:
        return None
    report = details.report
    shown = [one for one in report.figures if one.kind != "control"]
    load, gpu = report.load, report.machine.gpu
    return LatencyContent(
        where=f"Measured {report.measured} on {gpu or report.machine.processor}: {load.disturbed} of {load.rounds} "
        f"rounds were disturbed by other processes.",
        advice="" if report.advice is None else report.advice.text,
        verdicts=tuple(_verdict(one) for one in report.comparisons),
        rows=tuple(row for one in shown for row in _rows(one, details.name)),
        plots=tuple(_plots(report, shown, details.name)),
        remarks=tuple(dict.fromkeys(f"{one.name}: {note}" for one in shown for note in one.notes)),
    )


def timed(manifest: Manifest) -> Iterator[tuple[LatencyFigures, TimeDistribution]]:
    """The bundle's own figures without CUDA graphs, with their times end to end."""
    details = manifest.details(LatencyDetails)
    if details is not None:
        for one in details.report.figures:
            if one.kind == "model" and one.name == details.name and not one.cuda_graphs:
                yield one, one.end_to_end


def milliseconds(percentile: Percentile, samples: int) -> str:
    """A percentile, or how many of the samples that it needs there are."""
    return f"{samples} of {percentile.needs} samples" if percentile.ms is None else f"{percentile.ms:.3f} ms"


def _label(figures: LatencyFigures) -> str:
    return f"{figures.name}, graphs" if figures.cuda_graphs else figures.name


def _rows(figures: LatencyFigures, own: str) -> Iterator[LatencyRow]:
    for timing, times in (("end to end", figures.end_to_end), ("GPU", figures.gpu)):
        if times is not None:
            p50, p90, p99, longest = (
                milliseconds(one, times.samples) for one in (times.p50, times.p90, times.p99, times.max)
            )
            yield LatencyRow(
                name=_label(figures),
                timing=timing,
                batch=figures.batch,
                p50=p50,
                p90=p90,
                p99=p99,
                longest=longest,
                spread=f"{100 * times.cv:.1f} %",
                samples=times.samples,
                own=figures.kind == "model" and figures.name == own,
            )


def _plots(report: LatencyReport, shown: list[LatencyFigures], own: str) -> Iterator[tuple[int, str]]:
    for batch in dict.fromkeys(one.batch for one in shown):
        lines = [
            Line(_label(one), one.end_to_end.quantiles_ms, one.kind == "model" and one.name == own)
            for one in shown
            if one.batch == batch
        ]
        yield batch, times_chart(lines, f"end to end at batch {batch}, ms", f"times{batch}")


def _verdict(one: LatencyComparison) -> str:
    graphs = " with CUDA graphs" if one.cuda_graphs else ""
    what = f"{_TIMINGS[one.timing]}, {one.statistic}, batch {one.batch}{graphs}"
    ratio = ""
    if one.ratio is not None and one.low is not None and one.high is not None:
        ratio = f" ({one.ratio:.3f} of its time, 95 % interval {one.low:.3f} to {one.high:.3f})"
    reason = f", because {one.reason}" if one.reason else ""
    return f"{one.name} against {one.reference}, {what}: {one.verdict}{ratio}{reason}"
