"""Forms of one model that a device chooses from: what a build put into the bundle, and what came of each there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeformer.records.base import Figure, Record
from edgeformer.records.terms import Precision, Verdict
from edgeformer.records.verification import Score

__all__ = ["CandidateRecord", "Outcome", "TunedRecord"]

# It is part of files' names.
CandidateName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]

# What became of a candidate on the device: the one that is kept; how the others compare with it; or why they do not.
Outcome = Literal[
    "kept", "slower", "no difference", "not decided", "not timed", "missed its gate", "no engine", "does not run"
]


class CandidateRecord(Record):
    """A form of the model that an engine can be built from, with what the build found of it.

    Attributes:
        name: "int8", "fp16", "int8-float-attention".
        precision: names the gate of its engine.
        file: the graph that TensorRT is given, a file of the bundle; None for the graph that the bundle is of.
        verdict: of that gate, where the forms of the model were compared; one that missed it has no file.
        gate: the gate's figures and limits.
        snr_db: SNR of the outputs against the exported model, dB, the lowest of those that have one.
        accuracy: the task metric, where there were labels.
    """

    name: CandidateName
    precision: Precision
    file: str | None = None
    verdict: Verdict
    gate: str = ""
    snr_db: Figure | None = None
    accuracy: Score | None = None


class TunedRecord(Record):
    """What became of a candidate on the device.

    Attributes:
        name: the candidate's.
        precision: its precision.
        outcome: what became of it; "slower", "no difference" and "not decided" are against the one that is kept.
        reason: why it is not kept, where the outcome does not tell.
        gate: figures and limits of the gate of its engine, whose outputs were compared with those recorded.
        snr_db: SNR of those outputs, dB, the lowest of those that have one.
        engine_bytes: size of its engine.
        p50_ms: median end to end, milliseconds.
    """

    name: CandidateName
    precision: Precision
    outcome: Outcome
    reason: str = ""
    gate: str | None = None
    snr_db: Figure | None = None
    engine_bytes: int | None = None
    p50_ms: float | None = None
