"""The few words that every room uses. Standard library alone: kernels are measured where there is no more."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "CALIBRATED",
    "FLAVOURS",
    "INPUT_TYPES",
    "INT4_BLOCKS",
    "NORMALIZATIONS",
    "PRECISIONS",
    "PRECISION_WORDS",
    "QUANTIZED",
    "TYPED_PRECISIONS",
    "Flavour",
    "InputType",
    "Layout",
    "Normalization",
    "Precision",
    "Task",
    "TypedPrecision",
    "Verdict",
]

# int8 and fp8 round weights and activations (W8A8); the -weights forms round the weights of Linears alone, and compute
# in FP16 (W8A16, W4A16).
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-weights", "fp8", "int4-weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# A precision that is written with Q/DQ nodes besides `int8`, which has a search of its own.
TypedPrecision = Literal["int8-weights", "fp8", "int4-weights"]
TYPED_PRECISIONS: tuple[TypedPrecision, ...] = get_args(TypedPrecision)
# What is written with Q/DQ nodes; its floats are FP16.
QUANTIZED: tuple[Precision, ...] = ("int8", *TYPED_PRECISIONS)
# Of these what needs the ranges of activations, and so calibration images.
CALIBRATED: tuple[Precision, ...] = ("int8", "fp8")
# Input channels that may share a scale in int4-weights.
INT4_BLOCKS = (32, 64, 128)
# What people call the layers of a precision.
PRECISION_WORDS: dict[Precision, str] = {
    "fp32": "FP32",
    "fp16": "FP16",
    "bf16": "BF16",
    "int8": "INT8",
    "int8-weights": "INT8 weights",
    "fp8": "FP8",
    "int4-weights": "INT4 weights",
}

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
