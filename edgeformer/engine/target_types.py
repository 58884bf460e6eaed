"""Which quantized precisions a target takes, and what it gains by them, by the rules in ``targets.json``.

Nothing here says that one precision is faster than another: that is for a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeformer.engine.targets import Gain, Target, list_targets, list_type_rules
from edgeformer.errors import InputError
from edgeformer.records.terms import QUANTIZED, Flavour, Precision

__all__ = ["GAINS", "TypeSupport", "gain_lines", "require_precision", "support", "support_table"]

GAINS: dict[Gain, str] = {
    "accelerates": "accelerated, arithmetic in the type",
    "shrinks": "only shrinks, smaller weights and arithmetic in FP16",
    "unlisted": "arithmetic in the type, which NVIDIA does not list",
    "refused": "does not build",
}
# Of a target with several GPUs the one that makes least of a precision counts.
_WORST: tuple[Gain, ...] = ("refused", "unlisted", "shrinks", "accelerates")


@dataclass(frozen=True)
class TypeSupport:
    """What a target makes of a precision.

    Attributes:
        precision: the precision.
        gain: what it gains; see `GAINS`.
        why: in words.
        source: where that was read.
    """

    precision: Precision
    gain: Gain
    why: str
    source: str


def support(flavour: Flavour, sms: Sequence[int], precision: Precision) -> TypeSupport:
    """What TensorRT makes of a quantized precision on GPUs that one engine is for.

    Args:
        flavour: of TensorRT.
        sms: compute capabilities, times ten.
        precision: ``int8``, ``int8-weights``, ``fp8`` or ``int4-weights``.
    """
    rules = [rule for rule in list_type_rules() if (rule.flavour, rule.precision) == (flavour, precision)]
    found = []
    for sm in sms:
        # Below the lowest rule it is as at the lowest.
        rule = max((one for one in rules if one.sms_from <= sm), key=lambda one: one.sms_from, default=rules[0])
        found.append(TypeSupport(precision, rule.gain, rule.why, rule.source))
    return min(found, key=lambda one: _WORST.index(one.gain))


def require_precision(target: Target, precision: Precision) -> None:
    """Check that a target takes a precision.

    Raises:
        InputError: it does not; the message names the targets that do, and what this one takes.
    """
    if precision not in QUANTIZED:
        return
    found = support(target.flavour, target.sms, precision)
    if found.gain != "refused":
        return
    able = [one.name for one in list_targets() if support(one.flavour, one.sms, precision).gain != "refused"]
    others = [one for one in QUANTIZED if support(target.flavour, target.sms, one).gain != "refused"]
    raise InputError(
        "EF545",
        f"the target {target.name} (compute capability {target.compute_capability}) does not take {precision}: "
        f"{found.why} ({found.source}). Targets that take {precision}: {', '.join(able)}. {target.name} takes "
        f"{', '.join(others)} and fp16",
    )


def gain_lines(name: str, flavour: Flavour, sms: Sequence[int], precision: Precision) -> Iterator[str]:
    """What a build's last lines say of the precision that it has, and of the others, with the source.

    Args:
        name: of the target.
        flavour: of its TensorRT.
        sms: its compute capabilities, times ten.
        precision: of the build.
    """
    found = [support(flavour, sms, one) for one in QUANTIZED]
    for one in found:
        if one.precision == precision:
            yield f"{one.precision} on {name}: {GAINS[one.gain]}; {one.why} ({one.source})"
    words: dict[Gain, str] = {
        "accelerates": "accelerates",
        "shrinks": "only shrinks the weights with",
        "unlisted": "builds, and NVIDIA does not list,",
        "refused": "does not take",
    }
    parts = []
    for gain, word in words.items():
        names = [one.precision for one in found if one.gain == gain]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    yield f"{name} {'; '.join(parts)}"


def support_table() -> list[tuple[Flavour, tuple[int, ...], dict[Precision, TypeSupport]]]:
    """For each flavour the compute capabilities of the targets in groups that make the same of every precision."""
    rows: list[tuple[Flavour, tuple[int, ...], dict[Precision, TypeSupport]]] = []
    for flavour in ("tensorrt", "tensorrt_rtx"):
        sms = sorted({sm for target in list_targets() if target.flavour == flavour for sm in target.sms})
        groups: list[tuple[list[int], dict[Precision, TypeSupport]]] = []
        for sm in sms:
            found = {one: support(flavour, [sm], one) for one in QUANTIZED}
            if groups and groups[-1][1] == found:
                groups[-1][0].append(sm)
            else:
                groups.append(([sm], found))
        rows += [(flavour, tuple(group), found) for group, found in groups]
    return rows
