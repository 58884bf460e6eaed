"""The figures of a manifest in words. The command line prints them and a report shows them, so that the two agree."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgeformer.bundle.details import EngineDetails, ParityDetails
from edgeformer.bundle.files import ENGINE
from edgeformer.bundle.manifest import Manifest, StageRecord
from edgeformer.records.terms import Precision
from edgeformer.records.verification import FLOAT_ATTENTION, FormReport, Score

__all__ = [
    "accuracy_lines",
    "attention_line",
    "compared_form",
    "decibels",
    "engine_line",
    "forms_of",
    "megabytes",
    "percent",
    "score_text",
    "snr_db",
    "stage_time",
]


def percent(value: float) -> str:
    """Two decimals where there are any, so that all is told at a glance from nearly all."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " %"


def decibels(value: float) -> str:
    """An SNR with one decimal."""
    return f"{value:.1f} dB"


def megabytes(size: int) -> str:
    """A number of bytes in units of 1e6."""
    return f"{size / 1e6:.2f} MB"


def score_text(score: Score | None) -> str:
    """The figure of a metric with its unit; nothing where there is no score."""
    if score is None:
        return ""
    return percent(score.value) if score.unit == "points" else f"{score.value:.2f} {score.unit}"


def stage_time(stage: StageRecord) -> str:
    """How long a stage took, and whether that was in an earlier build."""
    return f"{stage.seconds:.1f} s" + (", reused" if stage.reused else "")


def forms_of(manifest: Manifest) -> dict[str, FormReport]:
    """What the parity stage found of each form of the model, by name."""
    parity = manifest.details(ParityDetails)
    return {} if parity is None else {form.name: form for form in parity.report.forms}


def compared_form(manifest: Manifest, precision: Precision) -> FormReport | None:
    """The form that computes in ``precision`` and was compared with FP32; None where there is none."""
    names: dict[Precision, str] = {"fp16": "fp16", manifest.precision: "typed"}
    return forms_of(manifest).get(names.get(precision, ""))


def snr_db(form: FormReport) -> float:
    """SNR against the exported model in dB, the lowest of those outputs that have one: integers have none."""
    figures = (output.snr_db for output in (form.first or {}).values())
    return min((snr for snr in figures if snr is not None), default=math.inf)


def attention_line(manifest: Manifest) -> str | None:
    """What INT8 attention costs, where a bundle has it: SNR and the routing agreement with it and without."""
    forms = forms_of(manifest)
    if FLOAT_ATTENTION not in forms:
        return None

    def figures(name: str, of: str = "") -> str:
        form = forms[name]
        routing = "" if form.routing_first is None else f", {percent(100 * form.routing_first.agreement)}{of}"
        return f"{decibels(snr_db(form))}{routing}"

    return f"attention   INT8: {figures('typed', ' of routing sets')}; in FP16: {figures(FLOAT_ATTENTION)}"


def accuracy_lines(manifest: Manifest) -> Iterator[str]:
    """The task accuracy of each precision, with its distance from FP32."""
    width = max(5, *map(len, manifest.accuracy)) if manifest.accuracy else 5
    for precision, score in manifest.accuracy.items():
        line = (
            f"{score.metric} {precision.upper():<{width}} {score_text(score):>8}   of {score.samples} labelled images"
        )
        form = None if precision == "fp32" else compared_form(manifest, precision)
        if form is not None:
            line += f", {decibels(snr_db(form))} from FP32"
        yield line


def engine_line(manifest: Manifest) -> str | None:
    """The engine's size, what it is for and its plugin layers; None without one."""
    engine, record = manifest.details(EngineDetails), manifest.files.get(ENGINE)
    if record is None or engine is None or engine.report is None:
        return None
    plugins = engine.report.plugin.in_network
    sms = ", ".join(map(str, manifest.target.sms))
    line = f"{megabytes(record.size)} for {manifest.target.name} (SM {sms}), {plugins} plugin layers"
    return line if engine.candidate is None else f"{line}; of the candidate {engine.candidate}"
