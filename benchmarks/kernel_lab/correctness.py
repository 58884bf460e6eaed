"""The kernels against float64, on the shapes and values where bugs hide."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from benchmarks.kernel_lab import reference
from benchmarks.kernel_lab.backend import Backend
from benchmarks.kernel_lab.records import Case
from benchmarks.kernel_lab.shapes import Shape
from edgeformer.errors import EdgeformerError
from edgeformer.ops import cuda
from edgeformer.ops.bi_level_routing_attention import Attributes
from edgeformer.ops.library import Library
from edgeformer.ops.memory import bfloat16

__all__ = [
    "FLOAT16",
    "INT8",
    "TYPES",
    "Call",
    "Precision",
    "Problem",
    "awkward_problems",
    "check",
    "table_problems",
]

Content = Literal["normal", "ties", "constant values", "large logits", "tiny logits", "nan", "infinity"]


@dataclass(frozen=True)
class Precision:
    """Types of one call.

    Attributes:
        name: of the input's type.
        torch_type: of the input.
        numpy_type: the same for `edgeformer.ops.cuda`.
        output: ONNX type of an INT8 input's output, else None.
        tolerance: of the error relative to float64: a rounding of the weights and one of the output.
    """

    name: str
    torch_type: torch.dtype
    numpy_type: np.dtype
    output: int | None
    tolerance: float

    @property
    def step(self) -> float | None:
        """Quantization step of an INT8 input, else None."""
        return None if self.output is None else _STEP

    @property
    def output_type(self) -> torch.dtype:
        """Type of the output."""
        if self.output is None:
            return self.torch_type
        return torch.float32 if self.output == TensorProto.FLOAT else torch.float16


FLOAT16 = Precision("float16", torch.float16, np.dtype(np.float16), None, 4e-4)
INT8 = Precision("int8", torch.int8, np.dtype(np.int8), TensorProto.FLOAT16, 4e-4)
TYPES = (
    FLOAT16,
    Precision("bfloat16", torch.bfloat16, bfloat16, None, 3.2e-3),
    Precision("float32", torch.float32, np.dtype(np.float32), None, 2e-6),
    INT8,
    Precision("int8", torch.int8, np.dtype(np.int8), TensorProto.FLOAT, 4e-4),
)
# Quantization step of INT8 inputs: a normal distribution fits, nearly.
_STEP = 1 / 32
# Single elements may be off by more than the norm: by this many times it, in units of the root mean square.
_WORST = 24.0
# Logits of some hundreds lose, in FP32, what their exponent makes of their last place.
_LARGE_LOGITS = 2e-4


@dataclass(frozen=True)
class Problem:
    """One input.

    Attributes:
        name: what it is for.
        batch: images.
        height: tokens.
        width: tokens.
        num_heads: heads.
        regions: per side.
        topk: regions each region attends to.
        head_dim_qk: channels of a head of q and of k.
        head_dim_v: channels of a head of v.
        content: of qkv.
        lepe_kernel: side of the fused convolution; 0: none.
    """

    name: str
    batch: int
    height: int
    width: int
    num_heads: int
    regions: int
    topk: int
    head_dim_qk: int = 32
    head_dim_v: int = 32
    content: Content = "normal"
    lepe_kernel: int = 0

    @property
    def dim(self) -> int:
        """Channels of v."""
        return self.num_heads * self.head_dim_v

    @property
    def qk_dim(self) -> int:
        """Channels of q."""
        return self.num_heads * self.head_dim_qk

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of qkv."""
        return (self.batch, self.height, self.width, 2 * self.qk_dim + self.dim)

    def attributes(self, precision: Precision, lepe_kernel: int = 0) -> Attributes:
        """Of the op, without LePE or with this side of its convolution. Exact contents have a power of two as scale."""
        scale = {"ties": 0.125, "large logits": 1.0}.get(self.content, self.qk_dim**-0.5)
        step = precision.step
        return Attributes(
            num_heads=self.num_heads,
            regions=self.regions,
            topk=self.topk,
            qk_dim=self.qk_dim,
            scale=scale,
            q_scale=step,
            k_scale=step,
            v_scale=step,
            output_type=precision.output,
            lepe_kernel=lepe_kernel or None,
            dim=self.dim if lepe_kernel else None,
        )

    def qkv(self, precision: Precision, device: torch.device) -> Tensor:
        """The input: the same numbers for the same problem, whatever the type."""
        generator = np.random.default_rng(zlib.crc32(self.name.encode()))
        x = generator.standard_normal(self.shape).astype(np.float32)
        if self.content == "ties":
            # Integers, few of them, and keys with one channel that is not 0: sums are exact, and many logits are equal.
            x = generator.integers(-1, 2, self.shape).astype(np.float32)
            x[..., self.qk_dim + 1 : 2 * self.qk_dim] = 0.0
        elif self.content == "constant values":
            x[..., 2 * self.qk_dim :] = 1.0
        elif self.content == "large logits":
            x[..., : 2 * self.qk_dim] *= 4.0
        elif self.content == "tiny logits":
            x[..., : 2 * self.qk_dim] *= 2.0**-12
        if precision.torch_type == torch.int8:
            step = 1.0 if self.content == "ties" else _STEP
            return torch.from_numpy((x / step).round().clip(-127, 127).astype(np.int8)).to(device)
        if self.content == "nan":
            x[0, 0, 0, 3] = np.nan  # a query, and so a mean
            x[-1, -1, -1, -1] = np.nan  # a value
        elif self.content == "infinity":
            x[0, 0, 0, self.qk_dim + 1] = np.inf  # a key
            x[-1, -1, -1, -1] = -np.inf
        return torch.from_numpy(x).to(device, precision.torch_type)

    @property
    def exact_routing(self) -> bool:
        """Whether FP32 gets the routing logits without rounding: integers, and a power of two of tokens."""
        tokens = (self.height // self.regions) * (self.width // self.regions)
        return self.content == "ties" and tokens & (tokens - 1) == 0


def awkward_problems() -> tuple[Problem, ...]:
    """Sizes around the kernels' tiles of 16 and 64, rectangles, one region, all regions, values that are no numbers."""
    return (
        Problem("t=1, all of 16", 2, 4, 4, 2, 4, 16),
        Problem("t=4, topk 16", 2, 14, 14, 2, 7, 16),
        Problem("t=6, topk 3", 1, 6, 9, 2, 3, 3),
        Problem("t=15, 3 x 5", 2, 9, 15, 2, 3, 4),
        Problem("t=16, topk 16", 1, 16, 16, 4, 4, 16, lepe_kernel=5),
        Problem("t=24, topk 16", 1, 16, 24, 2, 4, 16),
        Problem("t=36, topk 3", 2, 12, 12, 1, 2, 3),
        Problem("t=64, topk 1", 2, 24, 24, 2, 3, 1, lepe_kernel=5),
        Problem("t=77, topk 4", 1, 14, 22, 2, 2, 4, lepe_kernel=5),
        Problem("t=256, topk 1", 1, 32, 32, 2, 2, 1),
        Problem("t=273, topk 2", 1, 26, 42, 2, 2, 2),
        Problem("one region", 2, 7, 9, 2, 1, 1, lepe_kernel=3),
        Problem("16 regions, topk 16", 1, 32, 32, 2, 16, 16),
        Problem("heads of 16", 1, 12, 12, 3, 3, 2, 16, 16),
        Problem("heads of 24", 1, 12, 12, 2, 3, 2, 24, 24, lepe_kernel=7),
        Problem("heads of 64", 1, 12, 12, 2, 3, 4, 64, 64, lepe_kernel=5),
        Problem("heads of 96", 1, 12, 12, 1, 3, 4, 96, 96),
        Problem("heads of 128", 1, 8, 12, 1, 2, 2, 128, 128),
        Problem("wide queries, narrow values", 2, 12, 12, 2, 3, 4, 64, 16, lepe_kernel=3),
        Problem("narrow queries, wide values", 2, 12, 12, 2, 3, 4, 16, 48),
        Problem("heads of 12", 1, 12, 12, 2, 3, 4, 12, 12, lepe_kernel=3),
        Problem("ties, t=16", 2, 16, 16, 2, 4, 3, content="ties"),
        Problem("ties, t=1, all of 49", 1, 7, 7, 2, 7, 49, content="ties"),
        Problem("constant values, t=36", 1, 12, 12, 2, 2, 3, content="constant values"),
        Problem("constant values, t=15", 1, 9, 15, 2, 3, 4, content="constant values"),
        Problem("large logits", 1, 16, 16, 2, 4, 4, content="large logits"),
        Problem("tiny logits", 1, 16, 16, 2, 4, 4, content="tiny logits"),
        Problem("NaN in a query and a value", 2, 12, 12, 2, 3, 2, content="nan"),
        Problem("infinite key and value", 2, 12, 12, 2, 3, 2, content="infinity"),
    )


def table_problems(shapes: tuple[Shape, ...], batch: int = 2) -> tuple[Problem, ...]:
    """The shapes that are measured, with BiFormer's LePE."""
    return tuple(
        Problem(s.name, batch, s.height, s.width, s.num_heads, s.regions, s.topk, s.head_dim, s.head_dim, lepe_kernel=5)
        for s in shapes
    )


def check(problem: Problem, backend: Backend, library: Library) -> Iterator[Case]:
    """Compare every type, every variant that can run, without and with LePE."""
    for precision in TYPES:
        if problem.content in ("nan", "infinity") and precision.torch_type == torch.int8:
            continue
        call = Call(problem, precision, backend, library)
        for lepe_kernel in sorted({0, problem.lepe_kernel}):
            plan = cuda.plan(
                problem.shape, precision.numpy_type, problem.attributes(precision, lepe_kernel), library=library
            )
            for variant in plan.variants:
                yield call.compare(variant, lepe_kernel)


class Call:
    """One input in one type, with what float64 makes of it: computed once for all variants."""

    def __init__(self, problem: Problem, precision: Precision, backend: Backend, library: Library) -> None:
        self.problem, self.precision, self.backend, self.library = problem, precision, backend, library
        self.attributes = problem.attributes(precision)
        self.qkv = problem.qkv(precision, backend.device)
        self._routing: reference.Routing | None = None
        self._known: tuple[Tensor, Tensor] | None = None
        self._lepe: dict[int, Tensor] = {}

    def compare(self, variant: cuda.VariantName, lepe_kernel: int) -> Case:
        """Run the kernels and judge routing and output."""
        problem, precision = self.problem, self.precision
        tolerance = max(precision.tolerance, _LARGE_LOGITS if problem.content == "large logits" else 0.0)
        relative = worst = None
        rows = equal = 0
        try:
            out, indices = self.run(variant, lepe_kernel)
            self._routing = self._routing or reference.Routing(self.qkv, self.attributes, exact=problem.exact_routing)
            fault, rows, equal = self._routing.judge(indices)
            if not fault:
                relative, worst, fault = _errors(out, self._expected(indices, lepe_kernel), tolerance)
        except EdgeformerError as error:
            fault = str(error)
        return Case(
            name=problem.name,
            input_type=precision.name,
            output_type=str(precision.output_type).removeprefix("torch."),
            variant=variant,
            lepe_kernel=lepe_kernel,
            relative_error=relative,
            worst_error=worst,
            tolerance=tolerance,
            routing_rows=rows,
            routing_exact=equal,
            fault=fault,
        )

    def run(self, variant: cuda.VariantName | None, lepe_kernel: int) -> tuple[Tensor, Tensor]:
        """Output and routing. What a kernel leaves unwritten is NaN, or no region's number."""
        problem, precision, device = self.problem, self.precision, self.backend.device
        layout = cuda.workspace_layout(problem.shape, precision.numpy_type, self.attributes, library=self.library)
        # torch aligns GPU memory to more than the workspace needs, host memory to less.
        slack = torch.full((layout.bytes + layout.alignment,), 0xFF, dtype=torch.uint8, device=device)
        start = -slack.data_ptr() % layout.alignment
        workspace = slack[start : start + layout.bytes]
        shape = (*problem.shape[:3], problem.dim)
        out = torch.full(shape, float("nan"), dtype=precision.output_type, device=device)
        weight, bias = self._lepe_parameters(lepe_kernel) if lepe_kernel else (None, None)
        cuda.bi_level_routing_attention(
            self.qkv,
            problem.attributes(precision, lepe_kernel),
            lepe_weight=weight,
            lepe_bias=bias,
            out=out,
            workspace=workspace,
            variant=variant,
            library=self.library,
        )
        self.backend.synchronize()
        return out, cuda.routing(workspace, layout)

    def _lepe_parameters(self, kernel: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(kernel)
        device, out_type = self.backend.device, self.precision.output_type
        weight = torch.randn((kernel, kernel, self.problem.dim), generator=generator) / kernel
        bias = torch.randn(self.problem.dim, generator=generator)
        return weight.to(device, out_type), bias.to(device, out_type)

    def _expected(self, indices: Tensor, lepe_kernel: int) -> Tensor:
        if self._known is None or not torch.equal(self._known[0], indices):
            self._known = (indices, reference.attention(self.qkv, self.attributes, indices))
        attention = self._known[1]
        if not lepe_kernel:
            return attention
        if lepe_kernel not in self._lepe:
            self._lepe[lepe_kernel] = reference.lepe(self.qkv, self.attributes, *self._lepe_parameters(lepe_kernel))
        return attention + self._lepe[lepe_kernel]


def _errors(out: Tensor, expected: Tensor, tolerance: float) -> tuple[float | None, float | None, str]:
    """Relative error, worst error, fault. NaN and infinity must stand where the reference has them."""
    found = out.double()
    regular = expected.isfinite()
    if not torch.equal(found.isnan(), expected.isnan()) or not torch.equal(found.isfinite(), regular):
        both = int((found.isfinite() != regular).sum())
        return None, None, f"{both} values are finite in one of output and reference, not in the other"
    if not regular.any():
        return None, None, ""
    difference, truth = (found - expected)[regular], expected[regular]
    size = float(truth.square().mean().sqrt())
    if size == 0.0:
        return None, None, "" if not difference.any() else "the reference is 0, the output is not"
    relative = float(difference.square().mean().sqrt()) / size
    worst = float(difference.abs().max()) / size
    if relative > tolerance:
        return relative, worst, f"relative error {relative:.2e}; at most {tolerance:.1e} is rounding"
    if worst > _WORST * tolerance:
        return relative, worst, f"one value is off by {worst:.2e} of the root mean square"
    return relative, worst, ""
