"""The CUDA kernels, run on the CPU, against the op's reference (the C++ suite has more cases, and sanitizers)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto

from edgeformer.ops.bi_level_routing_attention import Attributes, reference, reference_routing
from tests.plugins import c_api

# Half a unit in the last place.
ROUNDOFF = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float16): 2.0**-11, np.dtype(ml_dtypes.bfloat16): 2.0**-8}

SHAPES = {
    # batch, height, width, then the attributes and dim.
    "t15": ((2, 9, 15), {"num_heads": 2, "regions": 3, "topk": 4, "qk_dim": 32}, 32),
    "t36": ((1, 12, 12), {"num_heads": 1, "regions": 2, "topk": 3, "qk_dim": 64}, 64),
    "t1_all": ((1, 4, 4), {"num_heads": 4, "regions": 4, "topk": 16, "qk_dim": 64}, 96),
    "narrow_values": ((1, 4, 8), {"num_heads": 2, "regions": 2, "topk": 2, "qk_dim": 96}, 34),
}


@pytest.fixture(scope="module")
def library(emulated_kernels: Path) -> ctypes.CDLL:
    return c_api.load(emulated_kernels)


def possible_variants(library: ctypes.CDLL, problem: c_api.Problem) -> list[int]:
    plan = c_api.Plan()
    status = library.edgeformerBiLevelRoutingAttentionPlan(ctypes.byref(problem), None, ctypes.byref(plan))
    assert status == c_api.SUCCESS, c_api.take_errors(library)
    return list(plan.variants[: plan.variant_count])


def run(
    library: ctypes.CDLL, qkv: npt.NDArray[Any], problem: c_api.Problem
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Output and routing."""
    layout = c_api.Workspace()
    status = library.edgeformerBiLevelRoutingAttentionWorkspace(ctypes.byref(problem), ctypes.byref(layout))
    assert status == c_api.SUCCESS, c_api.take_errors(library)
    output_type = next(dtype for dtype, code in c_api.TYPES.items() if code == problem.output_type)
    given = c_api.aligned(qkv.shape, qkv.dtype, 16)
    given[...] = qkv
    output = c_api.aligned((problem.batch, problem.height, problem.width, problem.dim), output_type, 16)
    workspace = c_api.aligned((layout.bytes,), np.uint8, layout.alignment)
    addresses = [array.ctypes.data for array in (given, output, workspace)]
    status = library.edgeformerBiLevelRoutingAttention(
        ctypes.byref(problem), addresses[0], None, None, *addresses[1:], layout.bytes, None
    )
    assert status == c_api.SUCCESS, c_api.take_errors(library)
    routing = workspace[layout.routing_offset : layout.routing_offset + layout.routing_bytes].view(np.int32)
    return output, routing.reshape(problem.batch, problem.regions**2, problem.topk)


def check(library: ctypes.CDLL, qkv: npt.NDArray[Any], attributes: Attributes, output_type: npt.DTypeLike) -> None:
    """Every variant that can run: the output's own rounding, and FP32 arithmetic on values of order 1 (2^-19: a few
    dozen roundings). Tensor cores take weights that are rounded to the input's type, to FP16 for INT8."""
    expected = reference(qkv, attributes)
    steps = attributes.v_scale or 1.0
    largest = steps * np.max(np.abs(qkv[..., 2 * attributes.qk_dim :].astype(np.float64)))
    for variant in possible_variants(library, c_api.problem_of(qkv, attributes, output_type)):
        output, routing = run(library, qkv, c_api.problem_of(qkv, attributes, output_type, variant=variant))
        np.testing.assert_array_equal(routing, reference_routing(qkv, attributes))
        weights = 0.0
        if variant != c_api.PLAIN:
            weights = ROUNDOFF[np.dtype(np.float16 if qkv.dtype == np.int8 else qkv.dtype)]
        tolerance = 1.01 * ROUNDOFF[output.dtype] * np.abs(expected) + 2.0**-19 + weights * largest
        assert np.max(np.abs(output.astype(np.float64) - expected) / tolerance) <= 1.0, f"variant {variant}"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float_kernels_match_the_reference(library: ctypes.CDLL, shape: str, dtype: npt.DTypeLike) -> None:
    sizes, sides, dim = SHAPES[shape]
    attributes = Attributes(**sides, scale=sides["qk_dim"] ** -0.5)
    rng = np.random.default_rng(7)
    qkv = rng.standard_normal((*sizes, 2 * attributes.qk_dim + dim)).astype(dtype)
    check(library, qkv, attributes, dtype)


@pytest.mark.parametrize(
    ("output_type", "dtype"), [(TensorProto.FLOAT16, np.float16), (TensorProto.FLOAT, np.float32)], ids=["fp16", "fp32"]
)
def test_int8_kernels_match_the_reference(library: ctypes.CDLL, output_type: int, dtype: npt.DTypeLike) -> None:
    sizes, sides, dim = SHAPES["t15"]
    attributes = Attributes(**sides, scale=0.2, q_scale=0.02, k_scale=0.03, v_scale=0.01, output_type=output_type)
    rng = np.random.default_rng(8)
    qkv = rng.integers(-128, 128, (*sizes, 2 * attributes.qk_dim + dim), dtype=np.int8)
    check(library, qkv, attributes, dtype)
