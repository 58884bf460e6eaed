"""The CUDA kernels, run on the CPU, against the op's reference (the C++ suite has more cases, and sanitizers)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto

from edgeformer.ops.bi_level_routing_attention import Attributes, reference, reference_routing

# ElementType in kernels.h.
ELEMENT_TYPES = {
    np.dtype(np.float32): 0,
    np.dtype(np.float16): 1,
    np.dtype(ml_dtypes.bfloat16): 2,
    np.dtype(np.int8): 3,
}
# Half a unit in the last place.
ROUNDOFF = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float16): 2.0**-11, np.dtype(ml_dtypes.bfloat16): 2.0**-8}

SHAPES = {
    # batch, height, width, then the attributes and dim.
    "t15": ((2, 9, 15), {"num_heads": 2, "regions": 3, "topk": 4, "qk_dim": 32}, 32),
    "t36": ((1, 12, 12), {"num_heads": 1, "regions": 2, "topk": 3, "qk_dim": 64}, 64),
    "t1_all": ((1, 4, 4), {"num_heads": 4, "regions": 4, "topk": 16, "qk_dim": 64}, 96),
    "narrow_values": ((1, 4, 8), {"num_heads": 2, "regions": 2, "topk": 2, "qk_dim": 96}, 34),
}


class Call(ctypes.Structure):
    """EmulatedCall in emulated_library.cpp."""

    _fields_ = [
        ("qkv", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("routing", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("input_type", "output_type", "batch", "height", "width", "qk_dim")),
        *((name, ctypes.c_int32) for name in ("dim", "num_heads", "regions", "topk")),
        *((name, ctypes.c_float) for name in ("scale", "q_scale", "k_scale", "v_scale")),
    ]


def run_emulated(
    library: Path, qkv: npt.NDArray, attributes: Attributes, output_type: npt.DTypeLike
) -> tuple[npt.NDArray, npt.NDArray]:
    batch, height, width, channels = qkv.shape
    output = np.zeros((batch, height, width, attributes.dim(channels)), output_type)
    routing = np.full((batch, attributes.regions**2, attributes.topk), -1, np.int32)
    call = Call(
        qkv=qkv.ctypes.data,
        output=output.ctypes.data,
        routing=routing.ctypes.data,
        input_type=ELEMENT_TYPES[qkv.dtype],
        output_type=ELEMENT_TYPES[output.dtype],
        batch=batch,
        height=height,
        width=width,
        dim=output.shape[3],
        qk_dim=attributes.qk_dim,
        num_heads=attributes.num_heads,
        regions=attributes.regions,
        topk=attributes.topk,
        scale=attributes.scale,
        q_scale=attributes.q_scale or 1.0,
        k_scale=attributes.k_scale or 1.0,
        v_scale=attributes.v_scale or 1.0,
    )
    assert ctypes.CDLL(str(library)).edgeformer_run_emulated(ctypes.byref(call)) == 0
    return output, routing


def check(output: npt.NDArray, expected: npt.NDArray) -> None:
    """The type's own rounding, and FP32 arithmetic on values of order 1 (2^-19: a few dozen roundings)."""
    tolerance = 1.01 * ROUNDOFF[output.dtype] * np.abs(expected) + 2.0**-19
    worst = np.max(np.abs(output.astype(np.float64) - expected) / tolerance)
    assert worst <= 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float_kernels_match_the_reference(emulated_kernels: Path, shape: str, dtype: npt.DTypeLike) -> None:
    sizes, sides, dim = SHAPES[shape]
    attributes = Attributes(**sides, scale=sides["qk_dim"] ** -0.5)
    rng = np.random.default_rng(7)
    qkv = rng.standard_normal((*sizes, 2 * attributes.qk_dim + dim)).astype(dtype)
    output, routing = run_emulated(emulated_kernels, qkv, attributes, dtype)
    np.testing.assert_array_equal(routing, reference_routing(qkv, attributes))
    check(output, reference(qkv, attributes))


@pytest.mark.parametrize(
    ("output_type", "dtype"), [(TensorProto.FLOAT16, np.float16), (TensorProto.FLOAT, np.float32)], ids=["fp16", "fp32"]
)
def test_int8_kernels_match_the_reference(emulated_kernels: Path, output_type: int, dtype: npt.DTypeLike) -> None:
    sizes, sides, dim = SHAPES["t15"]
    attributes = Attributes(**sides, scale=0.2, q_scale=0.02, k_scale=0.03, v_scale=0.01, output_type=output_type)
    rng = np.random.default_rng(8)
    qkv = rng.integers(-128, 128, (*sizes, 2 * attributes.qk_dim + dim), dtype=np.int8)
    output, routing = run_emulated(emulated_kernels, qkv, attributes, dtype)
    np.testing.assert_array_equal(routing, reference_routing(qkv, attributes))
    check(output, reference(qkv, attributes))
