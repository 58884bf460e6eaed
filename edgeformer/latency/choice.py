"""Which of several engines a device keeps, by the verdicts on them; and what became of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgeformer.records.autotune import Outcome
from edgeformer.records.latency import LatencyComparison, LatencyReport

__all__ = ["Choice", "choose", "outcome_of"]


class Choice(NamedTuple):
    """The one that is kept, and why, in a line."""

    kept: str
    why: str


def choose(names: Sequence[str], own: str, report: LatencyReport | None, problem: str = "") -> Choice:
    """Keep the one that no other beats end to end, and of several that do not differ the most accurate.

    Where nothing is decided, the bundle's own form stays, unless it is beaten: a change needs a reason.

    Args:
        names: of those that met their gates, the most accurate first; one at least.
        own: the form that the bundle is of, among the names or not.
        report: on all of them, timed in turns; None where they could not be timed.
        problem: why they could not.
    """
    if report is None:
        kept = own if own in names else names[0]
        return Choice(kept, f"{kept} is kept, and nothing was timed: {problem}")
    if report.advice is None:
        return Choice(names[0], f"{names[0]} alone meets its gate")
    if report.advice.ship is not None:
        return Choice(report.advice.ship, report.advice.text)
    beaten = {one.reference if one.verdict == "faster" else one.name for one in _decided(report)}
    left = [name for name in names if name not in beaten] or list(names)
    kept = own if own in left else left[0]
    return Choice(kept, f"{kept} is kept: {report.advice.text}")


def outcome_of(name: str, kept: str, report: LatencyReport | None) -> Outcome:
    """What became of one that met its gate, by the medians end to end."""
    if name == kept:
        return "kept"
    for one in _medians(report):
        if {one.name, one.reference} == {name, kept}:
            if one.verdict in ("no difference", "not decided"):
                return one.verdict
            # Faster than the one that is kept is only who is beaten by a third: noise.
            return "slower" if (one.verdict == "slower") == (one.name == name) else "not decided"
    return "not timed"


def _medians(report: LatencyReport | None) -> Iterator[LatencyComparison]:
    for one in () if report is None else report.comparisons:
        if one.timing == "end_to_end" and one.statistic == "median" and not one.cuda_graphs:
            yield one


def _decided(report: LatencyReport) -> Iterator[LatencyComparison]:
    return (one for one in _medians(report) if one.verdict in ("faster", "slower"))
