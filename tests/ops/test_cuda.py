"""The Python access to the kernels, through the library that runs them on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnx import TensorProto

from edgeformer.ops import cuda, operands
from edgeformer.ops import library as library_module
from edgeformer.ops.bi_level_routing_attention import Attributes, reference, reference_routing
from edgeformer.ops.library import Library, Variant, default_library, load_library
from edgeformer.ops.library_files import BUILD_COMMAND, ENVIRONMENT_VARIABLE
from edgeformer.ops.memory import memory_of
from tests.build_trees import make_build_tree, make_sources
from tests.raising import raises

ATTRIBUTES = Attributes(num_heads=2, regions=3, topk=4, qk_dim=32, scale=32**-0.5)
SHAPE = (2, 6, 9, 96)
QUANTIZED = Attributes(
    **{**vars(ATTRIBUTES), "q_scale": 0.02, "k_scale": 0.03, "v_scale": 0.04, "output_type": TensorProto.FLOAT16}
)
LEPE = Attributes(**{**vars(ATTRIBUTES), "lepe_kernel": 5, "dim": 32})
ORIN = cuda.Device(compute_capability=87, max_shared_bytes=166912, multiprocessors=16)


def values(seed: int, shape: tuple[int, ...] = SHAPE) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(out: Any, expected: npt.NDArray[np.float64], tolerance: float) -> None:
    found = np.asarray(out.float() if isinstance(out, torch.Tensor) else out, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-6), (np.float16, 1e-3), (ml_dtypes.bfloat16, 8e-3)], ids=str
)
def test_numpy_in_numpy_out(emulated: Library, dtype: Any, tolerance: float) -> None:
    qkv = values(0).astype(dtype)
    out = cuda.bi_level_routing_attention(qkv, ATTRIBUTES, library=emulated)
    assert out.dtype == dtype
    check(out, reference(qkv, ATTRIBUTES), tolerance)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_torch_in_torch_out(emulated: Library, kind: torch.dtype) -> None:
    qkv = torch.from_numpy(values(1)).to(kind)
    out = cuda.bi_level_routing_attention(qkv, ATTRIBUTES, library=emulated)
    assert out.dtype == kind
    check(out, reference(qkv.float().numpy(), ATTRIBUTES), 1e-6 if kind == torch.float32 else 8e-3)


@pytest.mark.parametrize("output", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_int8(emulated: Library, output: int) -> None:
    attributes = Attributes(**{**vars(QUANTIZED), "output_type": output})
    qkv = np.random.default_rng(2).integers(-127, 128, SHAPE).astype(np.int8)
    out = cuda.bi_level_routing_attention(qkv, attributes, library=emulated)
    assert out.dtype == (np.float16 if output == TensorProto.FLOAT16 else np.float32)
    assert cuda.output_dtype(np.int8, attributes) == out.dtype
    check(out, reference(qkv, attributes), 1e-3)


def test_routing_is_read_from_the_workspace(emulated: Library) -> None:
    qkv = torch.from_numpy(values(3))
    layout = cuda.workspace_layout(SHAPE, np.float32, ATTRIBUTES, library=emulated)
    assert layout.routing_shape == (2, 9, 4)
    assert layout.means_shape == (2, 9, 64)
    workspace = torch.empty(layout.bytes + layout.alignment, dtype=torch.uint8)
    workspace = workspace[-workspace.data_ptr() % layout.alignment :]
    cuda.bi_level_routing_attention(qkv, ATTRIBUTES, workspace=workspace, library=emulated)
    expected = reference_routing(qkv.numpy(), ATTRIBUTES)
    np.testing.assert_array_equal(cuda.routing(workspace, layout).numpy(), expected)
    np.testing.assert_array_equal(cuda.routing(workspace.numpy(), layout), expected)
    with raises("EF907", f"{layout.bytes} bytes", "uint8"):
        cuda.routing(workspace[:-300], layout)


def test_given_output_and_addresses(emulated: Library) -> None:
    qkv, out = values(4), np.full((*SHAPE[:3], 32), np.nan, np.float32)
    assert cuda.bi_level_routing_attention(qkv, ATTRIBUTES, out=out, library=emulated) is out
    check(out, reference(qkv, ATTRIBUTES), 1e-6)
    again = np.full_like(out, np.nan)
    layout = cuda.workspace_layout(SHAPE, np.float32, ATTRIBUTES, library=emulated)
    workspace = np.empty(layout.bytes + layout.alignment, np.uint8)
    address = workspace.ctypes.data + -workspace.ctypes.data % layout.alignment
    cuda.bi_level_routing_attention(
        cuda.Buffer(qkv.ctypes.data, SHAPE, np.float32),
        ATTRIBUTES,
        out=again.ctypes.data,
        workspace=address,
        library=emulated,
    )
    np.testing.assert_array_equal(out, again)


def test_lepe_is_added(emulated: Library) -> None:
    qkv, weight, bias = (
        torch.from_numpy(values(seed, shape)) for seed, shape in ((5, SHAPE), (6, (5, 5, 32)), (7, (32,)))
    )
    out = cuda.bi_level_routing_attention(qkv, LEPE, lepe_weight=weight, lepe_bias=bias, library=emulated)
    check(out, reference(qkv.numpy(), LEPE, weight.numpy(), bias.numpy()), 1e-6)


def test_an_empty_batch_does_nothing(emulated: Library) -> None:
    out = cuda.bi_level_routing_attention(torch.zeros(0, 6, 9, 96), ATTRIBUTES, library=emulated)
    assert out.shape == (0, 6, 9, 32)


def test_plan_of_a_gpu_that_is_not_here(emulated: Library) -> None:
    plan = cuda.plan((1, 14, 14, 96), np.float32, ATTRIBUTES_14, device=ORIN, library=emulated)
    assert plan.variant == "plain"
    assert plan.variants == ("plain",)
    assert plan.blocks >= 1


ATTRIBUTES_14 = Attributes(num_heads=1, regions=7, topk=4, qk_dim=32, scale=0.2)


@pytest.mark.parametrize("variant", ["plain", "gather", "resident"])
def test_every_variant_that_the_plan_names_runs(emulated: Library, variant: Any) -> None:
    shape = (1, 14, 14, 96)
    names = cuda.plan(shape, np.float16, ATTRIBUTES_14, library=emulated).variants
    if variant not in names:
        with raises("EF913", f"variant={Variant[variant.upper()].value}"):
            cuda.bi_level_routing_attention(
                np.zeros(shape, np.float16), ATTRIBUTES_14, variant=variant, library=emulated
            )
        return
    assert cuda.plan(shape, np.float16, ATTRIBUTES_14, variant=variant, library=emulated).variant == variant
    qkv = values(8, shape).astype(np.float16)
    out = cuda.bi_level_routing_attention(qkv, ATTRIBUTES_14, variant=variant, library=emulated)
    check(out, reference(qkv, ATTRIBUTES_14), 1e-3)


def on_gpu(shape: tuple[int, ...], device: int) -> Any:
    interface = {"shape": shape, "typestr": "<f4", "data": (1 << 20, False), "version": 3, "strides": None}
    return SimpleNamespace(__cuda_array_interface__=interface, device=SimpleNamespace(id=device))


def aligned_bytes(count: int) -> Any:
    """As a workspace has to be: at an address that is a multiple of 16."""
    raw = np.zeros(count + 256, np.uint8)
    start = -raw.ctypes.data % 256
    return raw[start : start + count]


QKV = np.zeros(SHAPE, np.float32)
OUT = np.zeros((*SHAPE[:3], 32), np.float32)
WEIGHT = np.zeros((5, 5, 32), np.float32)


@pytest.mark.parametrize(
    ("qkv", "arguments", "code", "named"),
    [
        (QKV.astype(np.float64), {}, "EF909", ("qkv is float64", "float32, float16, bfloat16 and int8")),
        (QKV.astype(np.int8), {}, "EF909", ("qkv is int8", "q_scale, k_scale, v_scale and output_type")),
        (QKV[0], {}, "EF903", ("(6, 9, 96)", "[N, H, W, channels]")),
        (np.zeros((1, 7, 9, 96), np.float32), {}, "EF903", ("H=7", "regions=3")),
        (QKV.transpose(0, 2, 1, 3), {}, "EF912", ("qkv", "strides", "contiguous")),
        (QKV, {"out": OUT[1:]}, "EF903", ("out is float32 of shape (1, ", "float32 of shape (2, 6, 9, 32)")),
        (QKV, {"out": OUT.astype(np.float16)}, "EF903", ("out is float16", "float32 of shape")),
        (QKV, {"out": QKV.reshape(-1)[: OUT.size].reshape(OUT.shape)}, "EF912", ("out overlaps qkv",)),
        (QKV, {"workspace": aligned_bytes(64)}, "EF907", ("workspace", "64 bytes", "workspace_layout")),
        (QKV, {"workspace": 256 * 77 + 1}, "EF912", ("workspace", "0x4d01", "multiple of 16")),
        (QKV, {"lepe_weight": WEIGHT}, "EF904", ("lepe_kernel=None", "lepe_weight is given")),
        (QKV, {"attributes": LEPE}, "EF904", ("lepe_kernel=5", "lepe_weight is missing")),
        (
            QKV,
            {"attributes": LEPE, "lepe_weight": WEIGHT[:3, :3].copy(), "lepe_bias": WEIGHT[0, 0]},
            "EF903",
            ("lepe_weight is float32 of shape (3, 3, 32)", "float32 of shape (5, 5, 32)"),
        ),
        (
            QKV,
            {"attributes": LEPE, "lepe_weight": WEIGHT.astype(np.float16), "lepe_bias": WEIGHT[0, 0]},
            "EF903",
            ("lepe_weight is float16", "float32 of shape"),
        ),
        (QKV, {"attributes": LEPE, "lepe_weight": WEIGHT}, "EF904", ("lepe_kernel=5", "lepe_bias is missing")),
        (QKV, {"variant": "warp"}, "EF910", ("'warp'", "plain, gather, resident")),
        (on_gpu(SHAPE, 0), {"out": OUT, "workspace": 4096}, "EF911", ("qkv", "CUDA device", "host memory")),
        (on_gpu(SHAPE, 0), {}, "EF908", ("SimpleNamespace", "give out=")),
        (
            on_gpu(SHAPE, 0),
            {"out": on_gpu(OUT.shape, 1), "workspace": 4096},
            "EF911",
            ("qkv on CUDA device 0", "out on CUDA device 1"),
        ),
    ],
)
def test_bad_use_is_one_message(
    emulated: Library, qkv: Any, arguments: dict[str, Any], code: str, named: tuple[str, ...]
) -> None:
    with raises(code, *named):
        cuda.bi_level_routing_attention(qkv, **{"attributes": ATTRIBUTES, **arguments}, library=emulated)


def test_misaligned_input(emulated: Library) -> None:
    buffer = torch.zeros(QKV.size + 1)
    with raises("EF912", "qkv", hex(buffer[1:].data_ptr()), "multiple of 16", ".clone()"):
        cuda.bi_level_routing_attention(buffer[1:].view(SHAPE), ATTRIBUTES, library=emulated)


def test_gradients_are_refused(emulated: Library) -> None:
    qkv = torch.zeros(SHAPE, requires_grad=True)
    with raises("EF905", "requires_grad", "torch.no_grad()"):
        cuda.bi_level_routing_attention(qkv, ATTRIBUTES, library=emulated)
    with torch.no_grad():
        cuda.bi_level_routing_attention(qkv, ATTRIBUTES, library=emulated)


def test_host_memory_is_refused_by_the_gpu_library() -> None:
    library: Any = SimpleNamespace(takes_device_memory=True, path="x.so")
    with raises("EF911", "qkv", "host memory", "CUDA device", ".cuda()"):
        operands.check_memory([memory_of(QKV, "qkv")], library, 256)


def test_library_of_the_environment(emulated_kernels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(emulated_kernels))
    assert default_library() is load_library(emulated_kernels)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone.so"))
    with raises("EF611", tmp_path / "gone.so"):
        default_library()


def test_no_library_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr("edgeformer.ops.library_files._PACKAGE", tmp_path / "edgeformer")
    make_sources(tmp_path)
    monkeypatch.setattr(library_module, "_default", library_module._default.__wrapped__)
    with raises("EF610", "_plugins", BUILD_COMMAND, ENVIRONMENT_VARIABLE):
        default_library()
    build = tmp_path / "build" / "x"
    build.mkdir(parents=True)
    (build / "libedgeformer_plugins.so").write_bytes(b"not ELF")
    with raises("EF610", f"{build / 'libedgeformer_plugins.so'} (no CMakeCache.txt"):
        default_library()
    make_build_tree(build)
    with raises("EF611", build / "libedgeformer_plugins.so"):
        default_library()


def test_a_library_of_something_else_is_refused() -> None:
    with raises("EF612", "libc.so.6", BUILD_COMMAND):
        load_library("libc.so.6")
