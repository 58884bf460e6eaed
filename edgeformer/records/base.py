"""What all records share: strict fields, and the few names that every room uses."""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, PlainSerializer

__all__ = ["FLAVOURS", "PRECISIONS", "Figure", "Flavour", "Precision", "Record", "Verdict"]

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# Without anything to judge it is "not judged", and what could not be run here is "not run": neither is a pass.
Verdict = Literal["passed", "missed", "not judged", "not run"]


def _as_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


# A number that may be infinite or NaN, which JSON cannot hold: those are the text "inf", "-inf" and "nan" there.
Figure = Annotated[float, PlainSerializer(_as_json, when_used="json")]


class Record(BaseModel):
    """A record: unknown fields are refused, and it does not change once it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
