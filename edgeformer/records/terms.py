"""The few words that every room uses. Standard library alone: kernels are measured where there is no more."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["FLAVOURS", "PRECISIONS", "Flavour", "Precision", "Verdict"]

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# Without anything to judge it is "not judged", and what could not be run here is "not run": neither is a pass.
Verdict = Literal["passed", "missed", "not judged", "not run"]
