"""``c_api.h``: the header in C, struct versions, and every bad use, over the emulated kernels; and that the real
library does the same as far as that needs no GPU."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.machine.devices import find_gpus
from tests.plugins import c_api
from tests.plugins.conftest import ROOT

# [2, 6, 9, 2 * 32 + 64], FP16, regions of 6 tokens.
PROBLEM: dict[str, Any] = {
    "input_type": 1,
    "output_type": 1,
    "batch": 2,
    "height": 6,
    "width": 9,
    "num_heads": 2,
    "regions": 3,
    "topk": 4,
    "qk_dim": 32,
    "dim": 64,
    "scale": 0.25,
}
MEANS_BYTES = 2 * 9 * 64 * 4  # a multiple of 256, so the routing follows at once
ROUTING_BYTES = 2 * 9 * 4 * 4
CODE = r"""
#include "bi_level_routing_attention/c_api.h"
#include <stdio.h>
int main(void) {
    struct EdgeformerBiLevelRoutingAttentionProblem problem = {0};
    int32_t (*run)(struct EdgeformerBiLevelRoutingAttentionProblem const*, void const*, void const*, void const*, void*,
                   void*, size_t, void*) = edgeformerBiLevelRoutingAttention;
    enum EdgeformerStatus status;
    problem.struct_size = sizeof problem;
    status = (enum EdgeformerStatus)run(&problem, NULL, NULL, NULL, NULL, NULL, 0, NULL);
    printf("%d %zu %zu %zu %zu\n", (int)status, sizeof problem,
           sizeof(struct EdgeformerBiLevelRoutingAttentionWorkspace), sizeof(struct EdgeformerDevice),
           sizeof(struct EdgeformerBiLevelRoutingAttentionPlan));
    return 0;
}
"""


@pytest.fixture
def library(emulated_kernels: Path) -> ctypes.CDLL:
    library = c_api.load(emulated_kernels)
    c_api.take_errors(library)
    return library


class Call:
    """Arguments of a good call, to be spoilt."""

    def __init__(self, **changes: Any) -> None:
        self.problem = c_api.Problem(**{**PROBLEM, **changes})
        self.qkv = c_api.aligned((2, 6, 9, 128), np.float16)
        self.qkv[...] = 1.0
        self.output = c_api.aligned((2, 6, 9, 64), np.float16)
        self.weight = c_api.aligned((3, 3, 64), np.float16)
        self.bias = c_api.aligned((64,), np.float16)
        self.workspace = c_api.aligned((MEANS_BYTES + ROUTING_BYTES,), np.uint8)
        lepe = self.problem.lepe_kernel != 0
        self.pointers: dict[str, int | None] = {
            "qkv": self.qkv.ctypes.data,
            "lepe_weight": self.weight.ctypes.data if lepe else None,
            "lepe_bias": self.bias.ctypes.data if lepe else None,
            "output": self.output.ctypes.data,
            "workspace": self.workspace.ctypes.data,
        }
        self.workspace_bytes = self.workspace.nbytes

    def run(self, library: ctypes.CDLL) -> int:
        return int(
            library.edgeformerBiLevelRoutingAttention(
                ctypes.byref(self.problem), *self.pointers.values(), self.workspace_bytes, None
            )
        )


def test_the_header_is_c(emulated_kernels: Path, tmp_path: Path) -> None:
    """In strict C99, with the sizes that ctypes has, and linked: what runs is the message for the empty problem."""
    source, program = tmp_path / "user.c", tmp_path / "user"
    source.write_text(CODE)
    flags = ["-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'plugins'}"]
    libraries = [str(emulated_kernels), f"-Wl,-rpath,{emulated_kernels.parent}"]
    subprocess.run(["cc", *flags, str(source), "-o", str(program), *libraries], check=True)
    output = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    sizes = [ctypes.sizeof(struct) for struct in (c_api.Problem, c_api.Workspace, c_api.Device, c_api.Plan)]
    assert output.split() == [str(number) for number in [c_api.UNSUPPORTED_PROBLEM, *sizes]]


def test_a_good_call(library: ctypes.CDLL) -> None:
    call = Call()
    assert call.run(library) == c_api.SUCCESS
    assert np.all(call.output == 1.0)  # equal values, whatever they are weighed with
    assert c_api.take_errors(library) == ""


def spoil_pointer(name: str, offset: int | None) -> Callable[[Call], None]:
    def spoil(call: Call) -> None:
        address = call.pointers[name]
        call.pointers[name] = None if offset is None else (address or 0) + offset

    return spoil


def spoil_workspace(call: Call) -> None:
    call.workspace_bytes -= 1


def unknown_lepe(call: Call) -> None:
    call.pointers["lepe_bias"] = call.bias.ctypes.data


BUFFERS: list[tuple[str, Callable[[Call], None], dict[str, Any]]] = [
    ("null pointer for qkv", spoil_pointer("qkv", None), {}),
    ("null pointer for the output", spoil_pointer("output", None), {}),
    ("null pointer for the workspace", spoil_pointer("workspace", None), {}),
    ("null pointer for lepe_weight", spoil_pointer("lepe_weight", None), {"lepe_kernel": 3}),
    ("null pointer for lepe_bias", spoil_pointer("lepe_bias", None), {"lepe_kernel": 3}),
    ("LePE weight or bias with lepe_kernel=0", unknown_lepe, {}),
    ("for qkv; it must be a multiple of 16", spoil_pointer("qkv", 8), {}),
    ("for the output; it must be a multiple of 16", spoil_pointer("output", 2), {}),
    ("for lepe_weight; it must be a multiple of 16", spoil_pointer("lepe_weight", 4), {"lepe_kernel": 3}),
    ("for the workspace; it must be a multiple of 16", spoil_pointer("workspace", 8), {}),
    (f"workspace of {MEANS_BYTES + ROUTING_BYTES - 1} bytes; the problem needs", spoil_workspace, {}),
]


@pytest.mark.parametrize(("words", "spoil", "changes"), BUFFERS, ids=[words for words, _, _ in BUFFERS])
def test_bad_buffers(library: ctypes.CDLL, words: str, spoil: Callable[[Call], None], changes: dict[str, Any]) -> None:
    call = Call(**changes)
    spoil(call)
    assert call.run(library) == c_api.INVALID_BUFFER
    message = c_api.take_errors(library)
    assert message.startswith("edgeformerBiLevelRoutingAttention: got ")
    assert words in message
    assert np.all(np.isnan(call.output))


PROBLEMS: list[tuple[str, dict[str, Any]]] = [
    ("input_type=4; it must be an EdgeformerType", {"input_type": 4}),
    ("output_type=-1", {"output_type": -1}),
    ("pair of input and output types", {"output_type": 0}),
    ("pair of input and output types", {"input_type": 3, "output_type": 2, "q_scale": 1, "k_scale": 1, "v_scale": 1}),
    ("N=-1", {"batch": -1}),
    ("H=7; it must be a positive multiple of regions=3", {"height": 7}),
    ("W=0", {"width": 0}),
    ("num_heads=0; it must be at least 1", {"num_heads": 0}),
    ("num_heads=-2147483648", {"num_heads": -(2**31)}),
    ("regions=0", {"regions": 0}),
    ("regions=111; the kernels take at most 110", {"regions": 111}),
    ("topk=10; at most regions ** 2 = 9", {"topk": 10}),
    ("topk=0", {"topk": 0}),
    ("qk_dim=33; it must be a multiple of num_heads=2", {"qk_dim": 33}),
    ("qk_dim=-2", {"qk_dim": -2}),
    ("got 127 channels", {"dim": 63}),
    ("got 64 channels", {"dim": 0}),
    ("got 4294967292 channels", {"qk_dim": 2**31 - 2, "dim": 0}),
    ("scale=nan", {"scale": math.nan}),
    ("scale=0", {"scale": 0.0}),
    ("q_scale=0; it must be positive", {"input_type": 3, "k_scale": 1.0, "v_scale": 1.0}),
    ("lepe_kernel=4; it must be odd and at most 7", {"lepe_kernel": 4}),
    ("lepe_kernel=9", {"lepe_kernel": 9}),
    ("lepe_kernel=-1", {"lepe_kernel": -1}),
    (
        "variant=4; for this problem on a GPU of compute capability 87 it must be one of 2 (gather), 3 (resident), "
        "1 (plain), or 0",
        {"variant": 4},
    ),
    (
        "variant=2 (gather); for this problem on a GPU of compute capability 87 it must be one of 1 (plain), or 0",
        {"variant": 2, "input_type": 0, "output_type": 0},
    ),
    ("variant=-1", {"variant": -1}),
    ("more than 2^31 - 1 blocks", {"batch": 2**31 - 1}),
    ("struct_size=68 in `problem`; it must be at least 72", {"struct_size": 68}),
    ("struct_size=0", {"struct_size": 0}),
]


@pytest.mark.parametrize(("words", "changes"), PROBLEMS, ids=[words for words, _ in PROBLEMS])
def test_bad_problems(library: ctypes.CDLL, words: str, changes: dict[str, Any]) -> None:
    call = Call()
    for name, value in changes.items():
        setattr(call.problem, name, value)
    plan = c_api.Plan()
    plan_status = library.edgeformerBiLevelRoutingAttentionPlan(ctypes.byref(call.problem), None, ctypes.byref(plan))
    assert plan_status == c_api.UNSUPPORTED_PROBLEM
    message = c_api.take_errors(library)
    assert message.startswith("edgeformerBiLevelRoutingAttentionPlan: ")
    assert words in message
    if not (changes.get("batch") or changes.get("variant")):
        layout = c_api.Workspace()
        assert library.edgeformerBiLevelRoutingAttentionWorkspace(ctypes.byref(call.problem), ctypes.byref(layout)) == 1
        assert words in c_api.take_errors(library)
    assert call.run(library) == c_api.UNSUPPORTED_PROBLEM
    assert words in c_api.take_errors(library)
    assert np.all(np.isnan(call.output))


def test_null_structs(library: ctypes.CDLL) -> None:
    good = ctypes.byref(c_api.Problem(**PROBLEM))
    assert library.edgeformerBiLevelRoutingAttention(None, None, None, None, None, None, 0, None) == 2
    assert library.edgeformerBiLevelRoutingAttentionWorkspace(None, ctypes.byref(c_api.Workspace())) == 2
    assert library.edgeformerBiLevelRoutingAttentionWorkspace(good, None) == 2
    assert library.edgeformerBiLevelRoutingAttentionPlan(None, None, ctypes.byref(c_api.Plan())) == 2
    assert library.edgeformerBiLevelRoutingAttentionPlan(good, None, None) == 2
    expected = ["`problem`", "`problem`", "`layout`", "`problem`", "`plan`"]
    messages = c_api.take_errors(library).splitlines()
    assert [message.rpartition(" ")[2] for message in messages] == expected
    assert all("got a null pointer for" in message for message in messages)


def test_an_empty_batch_needs_no_memory(library: ctypes.CDLL) -> None:
    problem = c_api.Problem(**{**PROBLEM, "batch": 0})
    assert library.edgeformerBiLevelRoutingAttention(ctypes.byref(problem), None, None, None, None, None, 0, None) == 0


def test_the_layout_of_the_workspace(library: ctypes.CDLL) -> None:
    layout = c_api.Workspace()
    problem = c_api.Problem(**{**PROBLEM, "qk_dim": 2, "dim": 2})
    assert library.edgeformerBiLevelRoutingAttentionWorkspace(ctypes.byref(problem), ctypes.byref(layout)) == 0
    assert (layout.alignment, layout.means_offset, layout.means_bytes) == (16, 0, 2 * 9 * 4 * 4)
    assert (layout.routing_offset, layout.routing_bytes) == (512, ROUTING_BYTES)
    assert layout.bytes == 512 + ROUTING_BYTES


def test_structs_of_other_versions(library: ctypes.CDLL) -> None:
    """A caller with a longer struct: fields that the library does not know are zero for it, and must be zero."""

    class LongerProblem(ctypes.Structure):
        _fields_ = [("known", c_api.Problem), ("later", ctypes.c_int32)]

    class LongerWorkspace(ctypes.Structure):
        _fields_ = [("known", c_api.Workspace), ("later", ctypes.c_int64)]

    problem = LongerProblem(c_api.Problem(**PROBLEM), 0)
    problem.known.struct_size = ctypes.sizeof(LongerProblem)
    layout = LongerWorkspace(c_api.Workspace(), 7)
    layout.known.struct_size = ctypes.sizeof(LongerWorkspace)
    assert library.edgeformerBiLevelRoutingAttentionWorkspace(ctypes.byref(problem), ctypes.byref(layout)) == 0
    assert layout.known.struct_size == ctypes.sizeof(LongerWorkspace)
    assert layout.known.bytes == MEANS_BYTES + ROUTING_BYTES
    assert layout.later == 0
    problem.later = 1
    assert library.edgeformerBiLevelRoutingAttentionWorkspace(ctypes.byref(problem), ctypes.byref(layout)) == 1
    assert "`problem` sets fields that this version of the library does not know" in c_api.take_errors(library)


def test_plans_need_no_gpu(library: ctypes.CDLL) -> None:
    plan = c_api.Plan()
    turing = c_api.Device(compute_capability=75, max_shared_bytes=64 * 1024, multiprocessors=40)
    problem = ctypes.byref(c_api.Problem(**PROBLEM))
    assert library.edgeformerBiLevelRoutingAttentionPlan(problem, ctypes.byref(turing), ctypes.byref(plan)) == 0
    assert plan.variant == plan.variants[0] == c_api.PLAIN
    assert (plan.variant_count, list(plan.variants[1:])) == (1, [0, 0, 0, 0])
    assert plan.blocks > 0
    turing.multiprocessors = 0
    assert library.edgeformerBiLevelRoutingAttentionPlan(problem, ctypes.byref(turing), ctypes.byref(plan)) == 1
    assert "multiprocessors of `device` must be positive" in c_api.take_errors(library)


@pytest.mark.parametrize(
    ("successes", "kernel"),
    [(0, "region mean"), (1, "routing"), (2, "attention")],
    ids=["mean", "routing", "attention"],
)
def test_failed_launches_are_cuda_errors(library: ctypes.CDLL, successes: int, kernel: str) -> None:
    call = Call()
    library.edgeformerEmulateFailedLaunch(successes, 719)
    assert call.run(library) == c_api.CUDA_ERROR
    expected = f"launching the {kernel} kernel failed: cudaErrorLaunchFailure: "
    assert expected in c_api.take_errors(library)
    assert np.all(np.isnan(call.output))
    assert call.run(library) == c_api.SUCCESS


def test_no_gpu_is_a_cuda_error(library: ctypes.CDLL) -> None:
    call = Call()
    library.edgeformerEmulateFailure(b"cudaGetDevice", 100)
    assert call.run(library) == c_api.CUDA_ERROR
    assert "looking for a CUDA device failed: cudaErrorNoDevice" in c_api.take_errors(library)
    # Nothing of the failure is remembered, neither here nor for a device that is seen for the first time.
    library.edgeformerEmulateDevice(
        ctypes.byref(c_api.Device(compute_capability=88, max_shared_bytes=12345, multiprocessors=3))
    )
    library.edgeformerEmulateFailure(b"cudaDeviceGetAttribute", 101)
    try:
        assert call.run(library) == c_api.CUDA_ERROR
        assert "querying the CUDA device failed: cudaErrorInvalidDevice" in c_api.take_errors(library)
    finally:
        library.edgeformerEmulateDevice(ctypes.byref(c_api.ORIN))
    assert call.run(library) == c_api.SUCCESS


def test_the_real_library_needs_no_gpu_to_plan(plugin_library: Path) -> None:
    real = c_api.load(plugin_library)
    layout, plan = c_api.Workspace(), c_api.Plan()
    problem = ctypes.byref(c_api.Problem(**PROBLEM))
    assert real.edgeformerBiLevelRoutingAttentionWorkspace(problem, ctypes.byref(layout)) == c_api.SUCCESS
    assert layout.bytes == MEANS_BYTES + ROUTING_BYTES
    status = real.edgeformerBiLevelRoutingAttentionPlan(problem, ctypes.byref(c_api.ORIN), ctypes.byref(plan))
    assert status == c_api.SUCCESS
    assert c_api.PLAIN in plan.variants[: plan.variant_count]


@pytest.mark.skipif(bool(find_gpus().gpus), reason="there is a GPU")
def test_the_real_library_says_that_there_is_no_gpu(plugin_library: Path) -> None:
    real = c_api.load(plugin_library)
    c_api.take_errors(real)
    assert Call().run(real) == c_api.CUDA_ERROR
    message = c_api.take_errors(real)
    assert message.startswith("edgeformerBiLevelRoutingAttention: looking for a CUDA device failed: cudaError")
