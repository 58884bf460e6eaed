"""The page of what was found, made from the JSON file and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.quantization.judge import COLUMNS

__all__ = ["BEGIN", "END", "inserted", "medians", "tables"]

BEGIN = "<!-- made by python -m benchmarks.quantization: begin -->"
END = "<!-- made by python -m benchmarks.quantization: end -->"

Figures = Mapping[str, Any]
_NONE = "-"
_INFINITE = "equal"


def inserted(page: str, document: Figures) -> str:
    """A page with its tables replaced by those of a document.

    Raises:
        ValueError: the page has not both markers, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"the page must have {BEGIN!r} and, behind it, {END!r}, once each")
    return f"{before}{BEGIN}\n\n{tables(document)}\n{END}{after}"


def tables(document: Figures) -> str:
    """All tables, as Markdown."""
    parts = [_origin(document), _subjects(document), _medians(document), _routing(document), _each(document)]
    missing = document["missing"]
    if missing:
        parts.append(
            "Could not be installed here: " + "; ".join(f"{tool}: {why}" for tool, why in missing.items()) + "."
        )
    failed = _failures(document)
    if failed:
        parts.append("No figures:\n\n" + "\n".join(failed))
    return "\n\n".join(parts) + "\n"


def _origin(document: Figures) -> str:
    machine = document["machine"]
    versions = "; ".join(
        f"{tool}: " + ", ".join(f"{name} {version}" for name, version in named.items())
        for tool, named in document["versions"].items()
    )
    where = f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f} at the end"
    return f"`{document['command']}` on {where}; {document['date']}. {versions}."


def _subjects(document: Figures) -> str:
    lines = [_row("checkpoint", "data", "FP32 clean", "FP32 degraded", "images", "strength"), _rule(6)]
    for name, found in document["subjects"].items():
        lines.append(
            _row(
                name,
                found["data"],
                f"{found['clean_top1']:.1f} %",
                f"{found['degraded_top1']:.1f} %",
                f"{found['clean_images']} / {found['degraded_images']}",
                f"{found['degradation_strength']:.3f}",
            )
        )
    return "\n".join(lines)


def medians(document: Figures, value: Callable[[Figures], float | None]) -> dict[tuple[str, str], float | None]:
    """The median of a figure over all checkpoints, by tool and row; None where a row has none."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in document["rows"]:
        values = found.setdefault((row["tool"], row["row"]), [])
        one = None if "failed" in row else value(row)
        if one is not None:
            values.append(one)
    return {name: median(values) if values else None for name, values in found.items()}


@dataclass(frozen=True)
class _Figure:
    """A column of the table of medians: its title, its format, and where a row has it."""

    title: str
    form: str
    key: str
    column: str | None = None

    def of(self, row: Figures) -> float | None:
        value: float | None = (row if self.column is None else row[self.column])[self.key]
        return value


class _OtherForms(_Figure):
    """The share of multiply-adds with an operand in FP8 or 4 bits."""

    def of(self, row: Figures) -> float:
        counts: Mapping[str, int] = row[self.key]
        return sum(count for form, count in counts.items() if "fp8" in form or "int4" in form) / sum(counts.values())


_FIGURES = [
    _Figure(f"{title} {column}", "{:.1f}", key, column)
    for title, key in (("SNR", "snr_db"), ("routing", "routing_mean"), ("top-1", "top1"), ("agreement", "agreement"))
    for column in COLUMNS
] + [
    _Figure("INT8", "{:.0%}", "int8"),
    _Figure("8-bit weights alone", "{:.0%}", "weights_8_bit"),
    _OtherForms("FP8 or INT4", "{:.0%}", "multiply_adds"),
    _Figure("s", "{:.1f}", "seconds"),
    _Figure("CPU s", "{:.1f}", "cpu_seconds"),
    _Figure("MB", "{:.0f}", "peak_mb"),
]


def _medians(document: Figures) -> str:
    found = [medians(document, figure.of) for figure in _FIGURES]
    lines = [_row("medians", "row", *(figure.title for figure in _FIGURES)), _rule(2 + len(_FIGURES))]
    for name in found[0]:
        shown = [_shown(values[name], figure.form) for figure, values in zip(_FIGURES, found, strict=True)]
        lines.append(_row(*name, *shown))
    return "\n".join(lines)


def _routing(document: Figures) -> str:
    blocks = max((len(row[COLUMNS[0]]["routing"]) for row in document["rows"] if "failed" not in row), default=0)
    lines = [_row("routing, %", "row", *(f"{column}, by block" for column in COLUMNS)), _rule(4)]
    found = {
        (column, block): medians(document, lambda row, c=column, b=block: _at(row[c]["routing"], b))  # type: ignore[misc]
        for column in COLUMNS
        for block in range(blocks)
    }
    for name in medians(document, lambda row: None):
        shown = [" ".join(_shown(found[column, b][name], "{:.0f}") for b in range(blocks)) for column in COLUMNS]
        lines.append(_row(*name, *shown))
    return "\n".join(lines)


def _each(document: Figures) -> str:
    subjects = list(document["subjects"])
    lines = [_row("SNR, dB: clean / degraded", "row", *subjects), _rule(2 + len(subjects))]
    found = {(row["tool"], row["row"], row["subject"]): row for row in document["rows"]}
    for tool, name in medians(document, lambda row: None):
        cells = []
        for subject in subjects:
            row = found.get((tool, name, subject))
            known = row is not None and "failed" not in row
            values = [_shown(row[column]["snr_db"], "{:.1f}") for column in COLUMNS] if row and known else [_NONE]
            cells.append(" / ".join(values))
        lines.append(_row(tool, name, *cells))
    return "\n".join(lines)


def _failures(document: Figures) -> list[str]:
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in document["rows"]:
        if "failed" in row:
            reasons.setdefault((row["tool"], row["row"], row["failed"]), []).append(row["subject"])
    return [f"- {tool}, {row} ({', '.join(where)}): `{why}`" for (tool, row, why), where in reasons.items()]


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _shown(value: float | None, form: str) -> str:
    if value is None:
        return _NONE
    return _INFINITE if value == float("inf") else form.format(value)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(count: int) -> str:
    return "|" + "---|" * count
