"""Every number that decides whether a stage is good enough. No other module holds one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgeformer.verify.figures import to_json_number

__all__ = ["DEFAULT_MAX_DROP", "GATES", "Gate", "Verdict", "check", "gates_of", "judged_against"]

# Points (hundredths) of the task metric that INT8 may cost.
DEFAULT_MAX_DROP = 1.0


@dataclass(frozen=True)
class Gate:
    """One condition of a stage.

    Attributes:
        stage: what the condition is for: ``export``, ``fuse``, or the precision of a typed model or engine.
        metric: the figure judged: a field of `Comparison`, ``accuracy_drop`` (points) for labelled data, or
            ``routing_agreement`` (fraction of region rows that pick the same regions).
        direction: whether the figure has to stay at or below, or at or above, the limit.
        limit: the limit.
        only_without: a metric that makes this condition unnecessary where it is known.
    """

    stage: str
    metric: str
    direction: Literal["<=", ">="]
    limit: float
    only_without: str | None = None


# export, fuse, fp16, int8: the project's design. The others follow from them:
# * fuse: exported and fused graph do the same arithmetic in another order. Where two regions nearly tie, the last bit
#   decides which is picked, and the output differs by more than rounding although both are right. So the difference is
#   judged on the samples that both route alike, and how many rows of routing agree is judged by itself.
# * fp32 is for an engine: on GPUs since Ampere TensorRT computes FP32 in TF32, which rounds as FP16 does.
# * bf16: its rounding step is 8 times FP16's (8 against 11 significant bits), so that its noise power, to which
#   1 - cosine is proportional, is 64 times as high (measured on BiFormer-T with random weights: 1.5e-7 for FP16, 1.4e-5
#   for BF16). Ten times FP16's limit, and twice its share of changed classes, is what is allowed: a model that needs
#   more is better served by FP16.
# * int8 without labels: accuracy can fall by no more than the fraction of samples whose top-1 class changed, so that
#   the same limit on that fraction is the stricter gate. Dense outputs have neither; their cosine is judged: 0.99 is
#   an SNR of about 17 dB.
GATES: tuple[Gate, ...] = (
    Gate("export", "max_abs_relative", "<=", 1e-4),
    Gate("fuse", "max_abs_relative", "<=", 1e-5),
    Gate("fuse", "routing_agreement", ">=", 0.999),
    Gate("fp32", "cosine", ">=", 0.9999),
    Gate("fp32", "top1_agreement", ">=", 0.995),
    Gate("fp16", "cosine", ">=", 0.9999),
    Gate("fp16", "top1_agreement", ">=", 0.995),
    Gate("bf16", "cosine", ">=", 0.999),
    Gate("bf16", "top1_agreement", ">=", 0.99),
    Gate("int8", "accuracy_drop", "<=", DEFAULT_MAX_DROP),
    Gate("int8", "top1_agreement", ">=", 1.0 - DEFAULT_MAX_DROP / 100.0, only_without="accuracy_drop"),
    Gate("int8", "cosine", ">=", 0.99, only_without="top1_agreement"),
)
_NAMES = {
    "max_abs_relative": "max |diff| / max |ref|",
    "routing_agreement": "routing agreement",
    "cosine": "cosine",
    "top1_agreement": "top-1 agreement",
    "accuracy_drop": "accuracy drop in points",
}


@dataclass(frozen=True)
class Verdict:
    """What a gate said.

    Attributes:
        passed: whether every condition of the stage is met.
        metric: the deciding figure's name: that of the first condition missed, or of the stage's first condition.
        value: that figure.
        limit: its limit.
        text: a line for people, all conditions of the stage in it.
    """

    passed: bool
    metric: str
    value: float
    limit: float
    text: str

    def to_dict(self) -> dict[str, bool | float | str | None]:
        """The verdict as JSON holds it; infinities and NaN are text."""
        return {
            "passed": self.passed,
            "metric": self.metric,
            "value": to_json_number(self.value),
            "limit": to_json_number(self.limit),
            "text": self.text,
        }


def gates_of(stage: str, *, max_drop: float = DEFAULT_MAX_DROP) -> tuple[Gate, ...]:
    """The conditions of a stage.

    Args:
        stage: ``export``, ``fuse``, ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        max_drop: points of the task metric that INT8 may cost.

    Raises:
        ValueError: no stage has that name.
    """
    found = tuple(gate for gate in GATES if gate.stage == stage)
    if not found:
        raise ValueError(f"no gate is named {stage!r}; there are {', '.join(sorted({gate.stage for gate in GATES}))}")
    if stage != "int8":
        return found
    # Rounded: 1 - max_drop / 100 must not lie one bit above the same fraction of samples.
    limits = {"accuracy_drop": max_drop, "top1_agreement": round(1.0 - max_drop / 100.0, 12)}
    return tuple(replace(gate, limit=limits.get(gate.metric, gate.limit)) for gate in found)


def judged_against(stage: str) -> Literal["previous", "first"]:
    """Which stage the figures of a gate compare with: the one just before, or the first (the FP32 model)."""
    return "previous" if stage in ("export", "fuse") else "first"


def _met(gate: Gate, value: float) -> bool:
    # Written so that NaN, which compares false with everything, misses.
    return value <= gate.limit if gate.direction == "<=" else value >= gate.limit


def check(stage: str, figures: Mapping[str, float | None], *, max_drop: float = DEFAULT_MAX_DROP) -> Verdict:
    """Judge a stage.

    Args:
        stage: as for `gates_of`.
        figures: figures by name. A figure that is absent or None does not apply (no labels, no classes); NaN misses.
        max_drop: points of the task metric that INT8 may cost.

    Raises:
        ValueError: no stage has that name, or no condition of the stage applies to the figures.
    """
    judged: list[tuple[Gate, float]] = []
    for gate in gates_of(stage, max_drop=max_drop):
        value = figures.get(gate.metric)
        if value is not None and (gate.only_without is None or figures.get(gate.only_without) is None):
            judged.append((gate, float(value)))
    if not judged:
        raise ValueError(f"none of the figures {', '.join(sorted(figures))} is judged by gate {stage!r}")
    missed = [(gate, value) for gate, value in judged if not _met(gate, value)]
    gate, value = (missed or judged)[0]
    text = "; ".join(
        f"{_NAMES[g.metric]} {_number(v)} {'meets' if _met(g, v) else 'MISSES'} {g.direction} {_number(g.limit)}"
        for g, v in judged
    )
    replaced = next((g.only_without for g, _ in judged if g.only_without is not None), None)
    if replaced is not None:
        text += f" (judged in place of {_NAMES[replaced]}, which is not known here)"
    return Verdict(not missed, gate.metric, value, gate.limit, text)


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.6g}"
