"""Every number that decides whether a stage, or a form of a precision, is good enough. No other module holds one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgeformer.errors import InputError
from edgeformer.records.terms import QUANTIZED, Precision
from edgeformer.records.verification import GateVerdict

__all__ = [
    "BLOCK_SLICE",
    "DEFAULT_MAX_DROP",
    "GATES",
    "UNIT_ROUNDOFF",
    "Gate",
    "GateVerdict",
    "block_stage",
    "check",
    "check_accepted",
    "fuse_stage",
    "gates_of",
    "judge",
    "judged_against",
    "largest_tie",
]

# Points (hundredths) of the task metric that a quantized model may cost.
DEFAULT_MAX_DROP = 1.0

# Largest relative error of rounding a value: half a unit in the last of 11 and of 8 significant bits. What a quantized
# model leaves in floating point is FP16.
UNIT_ROUNDOFF: dict[Precision, float] = {"fp16": 2.0**-11, "bf16": 2.0**-8, **dict.fromkeys(QUANTIZED, 2.0**-11)}
# Values of a channel from which on its noise is judged by itself: the mean of so many squares is good to 18 %.
BLOCK_SLICE = 64


@dataclass(frozen=True)
class Gate:
    """One condition of a stage.

    Attributes:
        stage: what the condition is for: ``export``, ``fuse``, or the precision of a typed model or engine.
        metric: the figure judged: a field of `Comparison`, ``accuracy_drop`` (points) for labelled data, or
            ``routing_agreement`` (fraction of region rows that pick the same regions).
        direction: whether the figure has to stay at or below, or at or above, the limit.
        limit: the limit.
        only_without: metrics each of which makes this condition unnecessary for an output that has it.
    """

    stage: str
    metric: str
    direction: Literal["<=", ">="]
    limit: float
    only_without: tuple[str, ...] = ()


def _of_quantized(precision: Precision, *, cosine: float) -> tuple[Gate, ...]:
    """The conditions of a quantized form: points of the task metric, or what stands for them without labels."""
    agreement = 1.0 - DEFAULT_MAX_DROP / 100.0
    return (
        Gate(precision, "accuracy_drop", "<=", DEFAULT_MAX_DROP),
        Gate(precision, "top1_agreement", ">=", agreement, ("accuracy_drop",)),
        Gate(precision, "integer_agreement", ">=", agreement, ("accuracy_drop",)),
        Gate(precision, "cosine", ">=", cosine, ("accuracy_drop", "top1_agreement")),
    )


# export, fuse, fp16, int8: the project's design. The others follow from them:
# * export, fuse: both graphs do the same arithmetic in another order. Where two regions nearly tie, the last bit
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
# * int8-weights, fp8, int4-weights: what a model may lose is its user's to say, and is the same number of points
#   whatever costs them; so are the limits that stand for it where there are no labels. Of dense outputs the cosine
#   differs: int8-weights rounds nothing but weights, with 8 significant bits for the largest of a channel, which is
#   what BF16 has for each, and BF16's limit is asked of it. FP8 (4 significant bits) and INT4 get INT8's.
# * integer_agreement: an integer output is what a comparison of floats came to: the largest logit (a class, a map of
#   classes), the order of scores (TopK's indices), a threshold (a mask). It is equal or it is not, and where it is not,
#   two floats lay closer together than the rounding between the two forms. For export and fuse that is what turns a row
#   of routing around, and the same share of it is allowed, on samples that both route alike. For a precision it is
#   what turns a top-1 class around: a class output *is* the top-1 class, and a map of classes is one of each pixel,
#   so that the limit is that on top-1 agreement. Indices in order of score are judged more strictly by it than a
#   class is, since the lower ranks lie closer together: a model whose user reads them wants them to be the same.
# * fuse-fp16, fuse-bf16: a graph that computes in 16 bits itself. Both graphs round each of their tensors to 16 bits,
#   in another order, so that they differ as much as either does from what FP32 would give: by what the gate of that
#   precision allows, whose limits these are. That they are the same function is proven before, in FP32 (`graph.fuse`
#   runs both with every tensor widened, to 1e-5). Rounding turns routing around more often than in FP32, and no limit
#   on that is derived: outputs are judged on the samples that both route alike.
# * block-fp32, block: a result in a block whose inputs, and whose routing, are those of the form before (`blocks`). In
#   FP32 it is the same arithmetic in another order, and may differ as a block may that `fuse` proves. In a narrower
#   precision its noise is held against that of the reference with every value rounded: twice the amplitude is allowed,
#   four times the power, since which way each value is rounded is chance, and the real graph rounds in other places.
GATES: tuple[Gate, ...] = (
    Gate("export", "max_abs_relative", "<=", 1e-4),
    Gate("export", "integer_agreement", ">=", 0.999),
    Gate("export", "routing_agreement", ">=", 0.999),
    Gate("fuse", "max_abs_relative", "<=", 1e-5),
    Gate("fuse", "integer_agreement", ">=", 0.999),
    Gate("fuse", "routing_agreement", ">=", 0.999),
    Gate("fuse-fp16", "cosine", ">=", 0.9999),
    Gate("fuse-fp16", "integer_agreement", ">=", 0.995),
    Gate("fuse-bf16", "cosine", ">=", 0.999),
    Gate("fuse-bf16", "integer_agreement", ">=", 0.99),
    Gate("block-fp32", "max_abs_relative", "<=", 1e-5),
    Gate("block", "noise_ratio", "<=", 4.0),
    Gate("fp32", "cosine", ">=", 0.9999),
    Gate("fp32", "top1_agreement", ">=", 0.995),
    Gate("fp32", "integer_agreement", ">=", 0.995),
    Gate("fp16", "cosine", ">=", 0.9999),
    Gate("fp16", "top1_agreement", ">=", 0.995),
    Gate("fp16", "integer_agreement", ">=", 0.995),
    Gate("bf16", "cosine", ">=", 0.999),
    Gate("bf16", "top1_agreement", ">=", 0.99),
    Gate("bf16", "integer_agreement", ">=", 0.99),
    *_of_quantized("int8", cosine=0.99),
    *_of_quantized("int8-weights", cosine=0.999),
    *_of_quantized("fp8", cosine=0.99),
    *_of_quantized("int4-weights", cosine=0.99),
)
_NAMES = {
    "max_abs_relative": "max |diff| / max |ref|",
    "routing_agreement": "routing agreement",
    "noise_ratio": "noise / expected noise",
    "cosine": "cosine",
    "top1_agreement": "top-1 agreement",
    "integer_agreement": "integer agreement",
    "accuracy_drop": "accuracy drop in points",
}


def gates_of(stage: str, *, max_drop: float = DEFAULT_MAX_DROP) -> tuple[Gate, ...]:
    """The conditions of a stage.

    Args:
        stage: ``export``, ``fuse``, ``fuse-fp16``, ``fuse-bf16``, or a precision.
        max_drop: points of the task metric that a quantized model may cost.

    Raises:
        ValueError: no stage has that name.
    """
    found = tuple(gate for gate in GATES if gate.stage == stage)
    if not found:
        raise ValueError(f"no gate is named {stage!r}; there are {', '.join(sorted({gate.stage for gate in GATES}))}")
    if stage not in QUANTIZED:
        return found
    # Rounded: 1 - max_drop / 100 must not lie one bit above the same fraction of samples.
    agreement = round(1.0 - max_drop / 100.0, 12)
    limits = {"accuracy_drop": max_drop, "top1_agreement": agreement, "integer_agreement": agreement}
    return tuple(replace(gate, limit=limits.get(gate.metric, gate.limit)) for gate in found)


def check_accepted(accepted: Iterable[str], outputs: Iterable[str]) -> None:
    """Check that outputs which are not to be judged are there.

    Raises:
        InputError: names each one that is not, and the outputs there are.
    """
    outputs = list(outputs)
    unknown = [name for name in accepted if name not in outputs]
    if unknown:
        raise InputError(
            "EF347",
            f"--accept-output {', '.join(map(repr, unknown))}: the model's outputs are {', '.join(map(repr, outputs))}",
        )


def fuse_stage(precision: Precision) -> str:
    """The gate of a fused graph, by the precision that the graph itself computes in."""
    return f"fuse-{precision}" if precision in ("fp16", "bf16") else "fuse"


def block_stage(precision: Precision) -> Literal["block-fp32", "block"]:
    """The gate of a result in a block, by the precision of the form that is judged."""
    return "block-fp32" if precision == "fp32" else "block"


def largest_tie(precision: Precision, moved: float, largest: float) -> float:
    """How far apart two logits may lie that a precision, or another order of sums, turns around.

    Each of the two may move by as much as the gate of a block allows a value to, in opposite directions.

    Args:
        precision: of the form that is judged.
        moved: the furthest that rounding alone moves a logit; not used for ``fp32``.
        largest: magnitude of the largest logit.
    """
    (gate,) = gates_of(block_stage(precision))
    return 2.0 * (gate.limit * largest if precision == "fp32" else math.sqrt(gate.limit) * moved)


def judged_against(stage: str) -> Literal["previous", "first"]:
    """Which form the figures of a gate compare with: the one just before, or the first (the FP32 model)."""
    return "previous" if stage in ("export", "fuse", "fuse-fp16", "fuse-bf16") else "first"


def _met(gate: Gate, value: float) -> bool:
    # Written so that NaN, which compares false with everything, misses.
    return value <= gate.limit if gate.direction == "<=" else value >= gate.limit


def check(stage: str, figures: Mapping[str, float | None], *, max_drop: float = DEFAULT_MAX_DROP) -> GateVerdict:
    """Judge a stage by the figures of one output.

    Args:
        stage: as for `gates_of`.
        figures: figures by name. A figure that is absent or None does not apply (no labels, no classes); NaN misses.
        max_drop: points of the task metric that a quantized model may cost.

    Raises:
        ValueError: no stage has that name, or no condition of the stage applies to the figures.
    """
    return judge(stage, {"": figures}, max_drop=max_drop).model_copy(update={"output": None})


def judge(
    stage: str,
    outputs: Mapping[str, Mapping[str, float | None]],
    *,
    shared: Mapping[str, float | None] | None = None,
    not_judged: Mapping[str, str] | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
) -> GateVerdict:
    """Judge a stage by the figures of all outputs: each condition by the output that is worst at it.

    Args:
        stage: as for `gates_of`.
        outputs: per output its figures by name; a figure that is absent or None does not apply to it, NaN misses. An
            output that is judged by ``accuracy_drop`` has that figure; the others of the model are judged without.
        shared: figures of the whole model by name, such as ``routing_agreement``.
        not_judged: figures that are known and say nothing here, with the reason; the text tells them.
        max_drop: points of the task metric that a quantized model may cost.

    Raises:
        ValueError: no stage has that name, or there is an output that no condition of the stage judges.
    """
    judged: list[tuple[Gate, str | None, float]] = []
    untouched = dict(outputs)
    for gate in gates_of(stage, max_drop=max_drop):
        applying = _applying(gate, outputs)
        for name in applying:
            untouched.pop(name, None)
        common = (shared or {}).get(gate.metric)
        candidates: dict[str | None, float] = dict(applying.items())
        if common is not None:
            candidates[None] = common
        if candidates:
            judged.append((gate, *_worst(gate, candidates)))
    if untouched or not judged:
        figures = next(iter(untouched.values()), {})
        known = ", ".join(sorted(key for key, value in figures.items() if value is not None)) or "(none)"
        of = f" of output {next(iter(untouched))!r}" if any(untouched) else ""
        raise ValueError(f"none of the figures {known}{of} is judged by gate {stage!r}")
    missed = [(gate, output, value) for gate, output, value in judged if not _met(gate, value)]
    gate, output, value = (missed or judged)[0]
    text = _text(judged, several=len(outputs) > 1, not_judged=not_judged or {}, stage=stage)
    return GateVerdict(passed=not missed, metric=gate.metric, value=value, limit=gate.limit, output=output, text=text)


def _applying(gate: Gate, outputs: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """The figures of those outputs that the condition is about."""
    found = {}
    for name, figures in outputs.items():
        value = figures.get(gate.metric)
        if value is not None and all(figures.get(other) is None for other in gate.only_without):
            found[name] = float(value)
    return found


def _worst(gate: Gate, values: Mapping[str | None, float]) -> tuple[str | None, float]:
    sign = 1.0 if gate.direction == "<=" else -1.0
    return max(values.items(), key=lambda item: math.inf if math.isnan(item[1]) else sign * item[1])


def _text(
    judged: Iterable[tuple[Gate, str | None, float]], *, several: bool, not_judged: Mapping[str, str], stage: str
) -> str:
    """A line for people: every condition and its figure, with the output's name where there are several."""
    judged = list(judged)
    about = {gate.metric for gate in GATES if gate.stage == stage}
    parts = [f"{_NAMES[metric]} not judged: {reason}" for metric, reason in not_judged.items() if metric in about]
    for gate, name, value in judged:
        of = f" of {name!r}" if several and name is not None else ""
        says = "meets" if _met(gate, value) else "MISSES"
        parts.append(f"{_NAMES[gate.metric]} {_number(value)}{of} {says} {gate.direction} {_number(gate.limit)}")
    text = "; ".join(parts)
    have = {gate.metric for gate, _, _ in judged} | set(not_judged)
    replaced = next(
        (g.only_without[-1] for g, _, _ in judged if g.only_without and have.isdisjoint(g.only_without)), None
    )
    if replaced is not None:
        text += f" (judged in place of {_NAMES[replaced]}, which is not known here)"
    return text


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.6g}"
