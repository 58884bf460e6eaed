"""Whether a model is faster than another, from an interval and from what this run's own noise was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgeformer.latency.statistics import Interval
from edgeformer.records.latency import ComparisonVerdict, LatencyAdvice, LatencyComparison

__all__ = ["CLOCKS_AGREE", "FEWEST_ROUNDS", "LEAST_LIMIT", "Judged", "advise", "judge", "limit_of"]

# The whole interval has to be beyond this, or beyond the run's own noise where that is more.
LEAST_LIMIT = 0.02
# With more noise than this, "no difference" would say nothing.
_MOST_NOISE = 0.05
# Of two blocks a model each: as many as the bootstrap needs.
FEWEST_ROUNDS = 10
# How far the clocks of two models may be apart, as a fraction.
CLOCKS_AGREE = 0.02
# Of models that are equally fast the one that computes most exactly is shipped.
_EXACT = {"fp32": 0, "fp16": 1, "bf16": 2, "int8-weights": 3, "int8": 4, "fp8": 5, "int4-weights": 6}


class Judged(NamedTuple):
    """A verdict, and why nothing was decided where nothing was."""

    verdict: ComparisonVerdict
    reason: str = ""


def limit_of(noise: Interval | None) -> float:
    """What an interval has to be beyond, as a fraction.

    Args:
        noise: of a model against itself, loaded once more; None where that is not known.
    """
    return LEAST_LIMIT if noise is None else max(LEAST_LIMIT, noise.furthest)


def judge(found: Interval, noise: Interval) -> Judged:
    """The verdict on an interval.

    Args:
        found: the model's time over the reference's.
        noise: of a model against itself, in the same run.

    Returns:
        "faster" or "slower" where the whole interval is beyond the limit, "no difference" where it is within it.
    """
    limit = limit_of(noise)
    # A ratio of 1 / 1.02 is as far as one of 1.02.
    bound = math.log1p(limit)
    low, high = math.log(found.low), math.log(found.high)
    if high < -bound:
        return Judged("faster")
    if low > bound:
        return Judged("slower")
    if limit > _MOST_NOISE:
        return Judged(
            "not decided",
            f"the same model, loaded twice, differs from itself by up to {_percent(noise.furthest)} here: let nothing "
            "else run, or measure longer (--seconds)",
        )
    if -bound < low and high < bound:
        return Judged("no difference")
    return Judged(
        "not decided",
        f"the interval, {_signed(found.low)} to {_signed(found.high)}, reaches over the limit of {_percent(limit)}: "
        "measure longer (--seconds)",
    )


def advise(
    names: Sequence[str], precisions: Sequence[str], comparisons: Sequence[LatencyComparison], batch: int
) -> LatencyAdvice:
    """Which model to ship, by the medians end to end at one batch.

    Args:
        names: of the models, two at least.
        precisions: of the same; empty where one is not known.
        comparisons: one for each pair of them: those of end to end, of the median, at this batch.
        batch: the batch.
    """
    # By precision, as people say it, where that tells the models apart.
    by_precision = all(precisions) and len(set(precisions)) == len(precisions)
    titles = dict(zip(names, [one.upper() for one in precisions] if by_precision else names, strict=True))
    at = f"end to end at batch {batch}"
    beaten = {one.reference if one.verdict == "faster" else one.name for one in comparisons if _decides(one)}
    best = [name for name in names if name not in beaten]
    for one in comparisons:
        if one.verdict == "not decided" and one.name in best and one.reference in best:
            between = f"{titles[one.reference]} and {titles[one.name]}"
            return LatencyAdvice(ship=None, batch=batch, text=f"not decided between {between}, because {one.reason}")
    if not best:  # each is beaten by another: noise
        return LatencyAdvice(ship=None, batch=batch, text=f"not decided: no model is the fastest {at}")
    if len(best) > 1:
        of = dict(zip(names, precisions, strict=True))
        ship = min(best, key=lambda name: _EXACT.get(of[name], len(_EXACT)))
        others = " and ".join(titles[name] for name in best if name != ship)
        text = f"ship {titles[ship]}: no difference from {others} {at}"
        return LatencyAdvice(ship=ship, batch=batch, text=text)
    (ship,) = best
    other, times = min(_gains(ship, comparisons), key=lambda gain: gain[1])
    return LatencyAdvice(
        ship=ship, batch=batch, text=f"ship {titles[ship]}: {times:.2f} times as fast as {titles[other]} {at}"
    )


def _decides(one: LatencyComparison) -> bool:
    return one.verdict in ("faster", "slower")


def _gains(ship: str, comparisons: Sequence[LatencyComparison]) -> list[tuple[str, float]]:
    """The models that one beats, each with how many times as fast it is."""
    gains = []
    for one in comparisons:
        if ship in (one.name, one.reference) and _decides(one) and one.ratio:
            is_reference = ship == one.reference
            gains.append((one.name if is_reference else one.reference, one.ratio if is_reference else 1 / one.ratio))
    return gains


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _signed(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
