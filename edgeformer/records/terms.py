"""The few words that every room uses. Standard library alone: kernels are measured where there is no more."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "FLAVOURS",
    "INPUT_TYPES",
    "NORMALIZATIONS",
    "PRECISIONS",
    "Flavour",
    "InputType",
    "Layout",
    "Normalization",
    "Precision",
    "Task",
    "Verdict",
]

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# What a network is for: "features" is all that has no task of its own here.
Task = Literal["classification", "features"]

# Order of the axes of a batch of images.
Layout = Literal["NCHW", "NHWC"]

# What is done to the pixels 0..255 of an image in front of the network: (x / 255 - mean) / std, x / 255, or nothing.
Normalization = Literal["mean_std", "scale", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)

# What a build's network takes: what the model takes, or pixels, which its graph normalizes.
InputType = Literal["float", "uint8"]
INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)

# Without anything to judge it is "not judged", and what could not be run here is "not run": neither is a pass.
Verdict = Literal["passed", "missed", "not judged", "not run"]
