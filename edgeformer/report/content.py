"""What a page says of a manifest, in words; how it looks is the template's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgeformer.bundle.details import EngineDetails, ParityDetails, PluginComparisonDetails
from edgeformer.bundle.figures import compared_form, decibels, forms_of, megabytes, percent, score_text, snr_db
from edgeformer.bundle.files import ENGINE
from edgeformer.bundle.manifest import Manifest
from edgeformer.records.network import BlockFigures
from edgeformer.records.terms import PRECISION_WORDS, QUANTIZED
from edgeformer.records.verification import FormReport
from edgeformer.report.latency import milliseconds, timed

__all__ = [
    "AccuracyRow",
    "BlockRow",
    "KeyFigure",
    "RoutingRow",
    "Verdict",
    "accuracy_rows",
    "block_rows",
    "key_figures",
    "routing_rows",
    "verdict_of",
]

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Verdict:
    """What became of a bundle.

    Attributes:
        kind: ``passed``, ``missed``, or ``open`` where something has not run yet.
        headline: in a few words.
        reasons: what to know besides, a sentence each.
    """

    kind: Literal["passed", "missed", "open"]
    headline: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class KeyFigure:
    """A figure that bundles are compared by.

    Attributes:
        name: what it is.
        text: the figure with its unit.
        note: what it is taken from.
        value: the figure, to compare.
        better: which of two is the better one; None where neither is.
    """

    name: str
    text: str
    note: str = ""
    value: float | None = None
    better: Better | None = None


@dataclass(frozen=True)
class AccuracyRow:
    """The task accuracy of one precision; ``drop`` is against FP32."""

    precision: str
    score: str
    drop: str
    snr: str
    samples: int


@dataclass(frozen=True)
class BlockRow:
    """A part of the network."""

    name: str
    precision: str
    attention: str
    snr: str


@dataclass(frozen=True)
class RoutingRow:
    """The routing of one block against the exported graph's."""

    name: str
    topk: int
    rows: int
    agreement: str
    overlap: str
    share: float


def verdict_of(manifest: Manifest) -> Verdict:
    """The verdict of a bundle: no gate is missed silently, and what did not run is no pass."""
    missed = [stage.name for stage in manifest.stages if stage.verdict == "missed"]
    if missed:
        gates = [f"{stage.name}: {stage.gate}" for stage in manifest.stages if stage.verdict == "missed"]
        return Verdict("missed", f"Gate missed: {', '.join(missed)}", tuple(gates))
    reasons = [f"{s.name}: {s.note}" for s in manifest.stages if s.verdict == "not run" and s.note]
    if not manifest.accuracy:
        reasons.append("task accuracy is not known: no labelled images were given (--eval-data)")
    for precision, score in manifest.accuracy.items():
        if score.at_chance:
            reasons.append(
                f"the {precision.upper()} model is no better than chance ({score_text(score)}), so that a small loss "
                "proves nothing"
            )
    if ENGINE not in manifest.files:
        return Verdict("open", "Every gate here passed; the engine is still to be built on the target", tuple(reasons))
    # What was not timed is correct all the same.
    if any(stage.verdict == "not run" and stage.name != "latency" for stage in manifest.stages):
        return Verdict("open", "Every gate here passed; the engine has not run on a GPU yet", tuple(reasons))
    return Verdict("passed", "Every gate passed", tuple(reasons))


def key_figures(manifest: Manifest) -> list[KeyFigure]:
    """The figures that matter most, of those that the manifest has."""
    return [*_accuracies(manifest), *_distances(manifest), *_latency(manifest), *_engine(manifest)]


def _accuracies(manifest: Manifest) -> Iterator[KeyFigure]:
    for precision, score in manifest.accuracy.items():
        name = f"{score.metric} {precision.upper()}"
        yield KeyFigure(name, score_text(score), f"of {score.samples} labelled images", score.value, "higher")


def _distances(manifest: Manifest) -> Iterator[KeyFigure]:
    typed = forms_of(manifest).get("typed")
    if typed is None:
        return
    if typed.first:
        snr = snr_db(typed)
        yield KeyFigure(
            "SNR of the outputs", decibels(snr), f"{manifest.precision.upper()} against FP32", snr, "higher"
        )
    if typed.routing_first is not None:
        agreement = typed.routing_first.agreement
        text = percent(100 * agreement)
        yield KeyFigure("routing agreement", text, "region sets as in FP32", agreement, "higher")


def _latency(manifest: Manifest) -> Iterator[KeyFigure]:
    for one, times in timed(manifest):
        text, note = milliseconds(times.p50, times.samples), f"median on {one.device}"
        yield KeyFigure(f"end to end at batch {one.batch}", text, note, times.p50.ms, "lower")


def _engine(manifest: Manifest) -> Iterator[KeyFigure]:
    engine, record = manifest.details(EngineDetails), manifest.files.get(ENGINE)
    if record is not None:
        yield KeyFigure("engine", megabytes(record.size), f"for {manifest.target.name}", record.size, "lower")
    if engine is None or engine.report is None:
        return
    report = engine.report
    if report.activation_bytes is not None:
        size = report.activation_bytes
        yield KeyFigure("activation memory", megabytes(size), "of the engine", size, "lower")
    plugins = report.plugin.in_network
    yield KeyFigure("plugin layers", str(plugins), f"for {report.op_nodes} op nodes", plugins)


def accuracy_rows(manifest: Manifest) -> list[AccuracyRow]:
    """The task accuracy by precision; empty without labels."""
    best = manifest.accuracy.get("fp32")
    rows = []
    for precision, score in manifest.accuracy.items():
        form = None if precision == "fp32" else compared_form(manifest, precision)
        drop = ""
        if best is not None and precision != "fp32":
            drop = f"{best.value - score.value:.2f} {score.unit}"
        snr = "" if form is None else decibels(snr_db(form))
        rows.append(AccuracyRow(precision.upper(), score_text(score), drop, snr, score.samples))
    return rows


def block_rows(manifest: Manifest) -> list[BlockRow]:
    """The network part by part."""
    parity = manifest.details(ParityDetails)
    return [] if parity is None else [_block_row(manifest, block) for block in parity.blocks]


def _block_row(manifest: Manifest, block: BlockFigures) -> BlockRow:
    kind = PRECISION_WORDS[manifest.precision]
    floats = "FP16" if manifest.precision in QUANTIZED else kind
    counts = [f"{count} {name}" for count, name in ((block.int8_layers, kind), (block.float_layers, floats)) if count]
    attention = ""
    if block.attention is not None and block.regions is not None:
        attention = f"{_runs_op(manifest)} {block.attention.upper()}, top {block.topk} of {block.regions**2}"
    snr = "" if block.snr_db is None else decibels(block.snr_db)
    return BlockRow(block.name, ", ".join(counts), attention, snr)


def _runs_op(manifest: Manifest) -> str:
    """What runs the op: the plugin, or the ONNX body where an engine was built without."""
    engine = manifest.details(EngineDetails)
    built = None if engine is None else engine.report
    return "ONNX body" if built is not None and not built.plugin.in_network else "plugin"


def routing_rows(form: FormReport | None) -> list[RoutingRow]:
    """The routing of a form block by block, against the first form that shows its routing."""
    if form is None or form.routing_first is None:
        return []
    return [
        RoutingRow(
            name=place_of(block.stage, block.block),
            topk=block.topk,
            rows=block.rows,
            agreement=percent(100 * block.agreement),
            overlap=percent(100 * block.overlap),
            share=block.agreement if math.isfinite(block.agreement) else 0.0,
        )
        for block in form.routing_first.blocks
    ]


def place_of(stage: int | None, block: int) -> str:
    """Where a block stands."""
    return f"block {block}" if stage is None else f"stage {stage}, block {block}"


def comparison_rows(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """The engine with the plugin and without, where the build compared them."""
    details = manifest.details(PluginComparisonDetails)
    return [] if details is None else details.comparison.rows()
