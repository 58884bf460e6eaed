"""What all records share: strict fields, and the few words that every room uses."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

__all__ = ["FLAVOURS", "PRECISIONS", "Flavour", "Precision", "Record", "Verdict"]

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# What is judged on nothing is "not judged", and what could not be run here is "not run": neither is a pass.
Verdict = Literal["passed", "missed", "not judged", "not run"]


class Record(BaseModel):
    """Unknown fields are refused, and nothing changes once it is written; infinities and NaN are text in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
