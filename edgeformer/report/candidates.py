"""The forms of the model that a device chooses from, as a page shows them: what the build found, what came of each."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.bundle.details import AutotuneDetails, CandidatesDetails
from edgeformer.bundle.figures import decibels, megabytes, score_text
from edgeformer.bundle.manifest import Manifest
from edgeformer.records.autotune import CandidateRecord, TunedRecord
from edgeformer.records.terms import Verdict

__all__ = ["CandidateRow", "CandidatesContent", "candidates_content"]


@dataclass(frozen=True)
class CandidateRow:
    """One of them; ``verdict`` is of its gate, on the device where it was tried there, and ``kept`` the choice."""

    name: str
    verdict: Verdict
    accuracy: str
    snr: str
    engine: str
    p50: str
    outcome: str
    kept: bool


@dataclass(frozen=True)
class CandidatesContent:
    """The section on them.

    Attributes:
        choice: which one is kept, and why; empty where the choice is still to be made.
        rows: each of them.
        remarks: why one is not among those to choose from.
    """

    choice: str
    rows: tuple[CandidateRow, ...]
    remarks: tuple[str, ...]


def candidates_content(manifest: Manifest) -> CandidatesContent | None:
    """What the manifest has of candidates; None where the bundle has none."""
    listed, tuned = manifest.details(CandidatesDetails), manifest.details(AutotuneDetails)
    if listed is None:
        return None
    came_of = {} if tuned is None else {one.name: one for one in tuned.candidates}
    return CandidatesContent(
        choice="" if tuned is None else tuned.text,
        rows=tuple(_row(one, came_of.get(one.name)) for one in listed.candidates),
        remarks=tuple(f"{one.name}: {one.outcome}: {one.reason}" for one in came_of.values() if one.reason),
    )


def _row(built: CandidateRecord, tuned: TunedRecord | None) -> CandidateRow:
    snr = built.snr_db if tuned is None or tuned.snr_db is None else tuned.snr_db
    return CandidateRow(
        name=built.name,
        verdict=built.verdict if tuned is None else _verdict(tuned),
        accuracy=score_text(built.accuracy),
        snr="" if snr is None else decibels(snr),
        engine="" if tuned is None or tuned.engine_bytes is None else megabytes(tuned.engine_bytes),
        p50="" if tuned is None or tuned.p50_ms is None else f"{tuned.p50_ms:.3f} ms",
        outcome="" if tuned is None else tuned.outcome,
        kept=tuned is not None and tuned.outcome == "kept",
    )


def _verdict(tuned: TunedRecord) -> Verdict:
    if tuned.outcome == "missed its gate":
        return "missed"
    return "passed" if tuned.gate is not None else "not run"
