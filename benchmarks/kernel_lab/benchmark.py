"""Times: the fused kernels in every form, what they are compared with, and what the GPU can do at most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernel_lab import baselines
from benchmarks.kernel_lab.backend import Backend
from benchmarks.kernel_lab.correctness import FLOAT16, INT8, Precision
from benchmarks.kernel_lab.goals import needed_by_goals
from benchmarks.kernel_lab.machine import sm_clock_mhz
from benchmarks.kernel_lab.records import Ceilings, Machine, Timing
from benchmarks.kernel_lab.shapes import Shape
from edgeformer.ops import cuda
from edgeformer.ops.library import Library

__all__ = ["Measurement", "input_sets", "measure_ceilings", "plan_measurements"]

LEPE_KERNEL = 5
_SECONDS = 0.1  # of timed rounds for one figure
_LOAD_US = 1.5e6  # longer than nvidia-smi takes to answer
_MAX_SETS = 192  # of inputs; more only lengthen the graph
# Baselines compute in FP16 throughout, kernels in FP32 where it matters.
_BASELINE_TOLERANCE = 2e-2
_WRONG_TOKENS = 0.02  # whose region FP16 and FP32 route differently


@dataclass(frozen=True)
class Measurement:
    """One figure to be taken.

    Attributes:
        label: for messages.
        run: takes it.
        for_goals: whether a goal is judged by it, or will be asked after first: the plain op's own time.
    """

    label: str
    run: Callable[[], Timing]
    for_goals: bool


def measure_ceilings(backend: Backend, machine: Machine) -> Ceilings:
    """Copy bandwidth and matrix products, measured; exponentials, computed from the clock."""
    rehearsal = backend.device.type == "cpu"
    megabytes, side = (1, 64) if rehearsal else (1024, 8192)
    source = torch.randn(megabytes << 18, device=backend.device)
    target = torch.empty_like(source)
    copy = backend.time([lambda: target.copy_(source)], graph=False, seconds=_SECONDS)
    a, b = (torch.randn(side, side, device=backend.device, dtype=torch.float16) for _ in range(2))
    product = torch.empty_like(a)
    half = backend.time([lambda: torch.mm(a, b, out=product)], graph=False, seconds=_SECONDS)
    clock = None if rehearsal else _loaded_clock(lambda: torch.mm(a, b, out=product), half.median_us, backend)
    int8_ops: float | None
    try:
        x, y = ((matrix * 16).to(torch.int8) for matrix in (a, b))
        # The second operand column by column, as the tensor cores' INT8 kernels want it.
        y = y.t().contiguous().t()
        eight = backend.time([lambda: torch._int_mm(x, y)], graph=False, seconds=_SECONDS)
        int8_ops = 2 * side**3 / (eight.median_us * 1e-6)
    except RuntimeError:  # not offered for this GPU
        int8_ops = None
    return Ceilings(
        copy_bytes_per_second=2 * source.nbytes / (copy.median_us * 1e-6),
        fp16_flops=2 * side**3 / (half.median_us * 1e-6),
        int8_ops=int8_ops,
        exponentials_per_second=machine.sm_clock_mhz and 16 * machine.multiprocessors * machine.sm_clock_mhz * 1e6,
        loaded_clock_mhz=clock,
    )


def _loaded_clock(product: Callable[[], object], us: float, backend: Backend) -> float | None:
    """The clock while products run, each for so many microseconds; None, and none run, where the driver says none."""
    if sm_clock_mhz() is None:
        return None
    for _ in range(math.ceil(_LOAD_US / us)):  # queued: the clock is read while they run
        product()
    clock = sm_clock_mhz()
    backend.synchronize()
    return clock


def input_sets(shape: Shape, batch: int, precision: Precision, backend: Backend) -> list[Tensor]:
    """Enough inputs that a round over them, with their outputs, is at least twice the second-level cache."""
    one = math.prod(shape.qkv_shape(batch)) * precision.torch_type.itemsize
    sets = min(max(math.ceil(2 * backend.l2_bytes / (one * 4 // 3)), 2), _MAX_SETS)
    generator = torch.Generator(backend.device).manual_seed(batch)
    tensors = []
    for _ in range(sets):
        x = torch.randn(shape.qkv_shape(batch), generator=generator, device=backend.device)
        if precision.step is None:
            tensors.append(x.to(precision.torch_type))
        else:
            tensors.append((x / precision.step).round().clamp(-127, 127).to(precision.torch_type))
    return tensors


def plan_measurements(
    shapes: Sequence[Shape],
    batches: Sequence[int],
    backend: Backend,
    library: Library,
    machine: Machine,
    *,
    with_baselines: bool = True,
) -> Iterator[Measurement]:
    """Everything to measure, most telling first: what the budget has no room for is at the end."""
    cases = [(shape, batch) for batch in batches for shape in shapes]
    needed = needed_by_goals(machine.compute_capability)

    def needs(shape: Shape, batch: int, names: tuple[str, ...]) -> bool:
        return any((shape.name, batch, name) in needed for name in names)

    for shape, batch in cases:
        yield from _fused(shape, batch, backend, library, plain=True, machine=machine)
    if with_baselines:
        # Compiling takes longer than measuring, some ten seconds each: the ones that goals are set for come first.
        telling = [case for case in cases if needs(*case, ("compile", "flex"))]
        for shape, batch in cases:
            yield from _plain_baselines(shape, batch, backend, library, needs(shape, batch, ("eager", "sdpa")))
        for shape, batch in telling:
            yield from _compiled_baselines(shape, batch, backend, library, for_goals=True)
    for shape, batch in cases:
        yield from _fused(shape, batch, backend, library, plain=False, machine=machine)
    if with_baselines:
        for shape, batch in cases:
            if (shape, batch) not in telling:
                yield from _compiled_baselines(shape, batch, backend, library, for_goals=False)


class _Calls:
    """The fused op on rotating inputs, each with buffers of its own: graph replays may overlap their ends."""

    def __init__(
        self, shape: Shape, batch: int, precision: Precision, backend: Backend, library: Library, lepe: bool
    ) -> None:
        self.shape, self.batch, self.precision, self.backend, self.library = shape, batch, precision, backend, library
        self.attributes = shape.attributes(precision.step, precision.output, LEPE_KERNEL if lepe else None)
        self.inputs = input_sets(shape, batch, precision, backend)
        device, out_type = backend.device, precision.output_type
        self.outputs = [torch.empty((*x.shape[:3], shape.dim), dtype=out_type, device=device) for x in self.inputs]
        layout = cuda.workspace_layout(shape.qkv_shape(batch), precision.numpy_type, self.attributes, library=library)
        self.workspaces = []
        for _ in self.inputs:
            memory = torch.empty(layout.bytes + layout.alignment, dtype=torch.uint8, device=device)
            start = -memory.data_ptr() % layout.alignment
            self.workspaces.append(memory[start : start + layout.bytes])
        self.lepe_weight = self.lepe_bias = None
        if lepe:
            self.lepe_weight = torch.randn(LEPE_KERNEL, LEPE_KERNEL, shape.dim, device=device).to(out_type)
            self.lepe_bias = torch.randn(shape.dim, device=device).to(out_type)

    def fused(self, index: int, variant: cuda.VariantName | None, programmatic_launch: bool) -> Tensor:
        out: Tensor = cuda.bi_level_routing_attention(
            self.inputs[index],
            self.attributes,
            lepe_weight=self.lepe_weight,
            lepe_bias=self.lepe_bias,
            out=self.outputs[index],
            workspace=self.workspaces[index],
            variant=variant,
            programmatic_launch=programmatic_launch,
            library=self.library,
        )
        return out


def _timing(
    shape: Shape,
    batch: int,
    implementation: str,
    precision: Precision,
    backend: Backend,
    calls: Sequence[Callable[[], Any]],
    *,
    graph: bool,
    **form: Any,
) -> Timing:
    sample = backend.time(calls, graph=graph, seconds=_SECONDS)
    form = {"variant": "", "chosen": "", "lepe": "none", "programmatic_launch": False, **form}
    return Timing(
        shape=shape.name,
        batch=batch,
        implementation=implementation,
        input_type=precision.name,
        graph=graph,
        median_us=sample.median_us,
        low_us=sample.low_us,
        high_us=sample.high_us,
        rounds=sample.rounds,
        input_sets=len(calls),
        **form,
    )


def _fused(
    shape: Shape, batch: int, backend: Backend, library: Library, *, plain: bool, machine: Machine
) -> Iterator[Measurement]:
    """The library's choice in FP16, INT8 and called from Python; or else its variants, LePE and programmatic launch."""
    for precision in (FLOAT16, INT8):
        half = precision is FLOAT16
        forms: list[dict[str, Any]] = []
        if plain:
            forms += [{"graph": True}, {"graph": False}][: 1 + half]
        else:
            plan = cuda.plan(
                shape.qkv_shape(batch),
                precision.numpy_type,
                shape.attributes(precision.step, precision.output),
                library=library,
            )
            # Torch has no depthwise convolution of INT8 to set beside the fused one.
            forms += [{"graph": True, "lepe": "fused"}, {"graph": True, "lepe": "conv"}][: 1 + half]
            forms += [{"graph": True, "variant": name} for name in plan.variants if name != plan.variant]
            if machine.compute_capability >= 90:
                forms.append({"graph": True, "programmatic_launch": True})
        for form in forms:
            words = [shape.name, f"batch {batch}", "fused", precision.name]
            words += [f"{name}={value}" for name, value in form.items()]

            def run(precision: Precision = precision, form: dict[str, Any] = form) -> Timing:
                return _time_fused(shape, batch, precision, backend, library, form)

            yield Measurement(" ".join(words), run, for_goals=plain)


def _time_fused(
    shape: Shape, batch: int, precision: Precision, backend: Backend, library: Library, form: dict[str, Any]
) -> Timing:
    lepe = form.get("lepe", "none")
    variant = form.get("variant") or None
    programmatic = bool(form.get("programmatic_launch"))
    sets = _Calls(shape, batch, precision, backend, library, lepe == "fused")
    plan = cuda.plan(
        shape.qkv_shape(batch),
        precision.numpy_type,
        sets.attributes,
        variant=variant,
        library=library,
    )
    device, out_type = backend.device, precision.output_type
    weight = torch.randn(shape.dim, 1, LEPE_KERNEL, LEPE_KERNEL, device=device).to(out_type)
    bias = torch.randn(shape.dim, device=device).to(out_type)

    def call(index: int) -> Callable[[], Any]:
        def fused(_qkv: Tensor) -> Tensor:
            return sets.fused(index, variant, programmatic)

        function = baselines.conv_lepe(shape, fused, weight, bias) if lepe == "conv" else fused
        return lambda: function(sets.inputs[index])

    calls = [call(index) for index in range(len(sets.inputs))]
    return _timing(
        shape,
        batch,
        "fused",
        precision,
        backend,
        calls,
        graph=form["graph"],
        variant=variant or "",
        chosen=plan.variant,
        lepe=lepe,
        programmatic_launch=programmatic,
    )


def _plain_baselines(
    shape: Shape, batch: int, backend: Backend, library: Library, for_goals: bool
) -> Iterator[Measurement]:
    for name, make in (("eager", baselines.eager), ("sdpa", baselines.sdpa)):
        for graph in (True, False):
            yield _baseline(name, graph, partial(make, shape), shape, batch, backend, library, for_goals)


def _compiled_baselines(
    shape: Shape, batch: int, backend: Backend, library: Library, *, for_goals: bool
) -> Iterator[Measurement]:
    def compiled() -> baselines.Baseline:
        return baselines.compiled(shape, backend.backend_of_compile)

    def flex() -> baselines.Baseline:
        return baselines.flex(shape, compile_kernel=backend.device.type == "cuda")

    for name, make in (("compile", compiled), ("flex", flex)):
        made: list[baselines.Baseline] = []

        def once(make: Callable[[], baselines.Baseline] = make, made: list[baselines.Baseline] = made) -> Any:
            # What was compiled for other sizes would count towards dynamo's limit of recompilations.
            if not made:
                torch._dynamo.reset()
                made.append(make())
            return made[0]

        for graph in (True, False):
            yield _baseline(name, graph, once, shape, batch, backend, library, for_goals)


def _baseline(
    name: str,
    graph: bool,
    make: Callable[[], baselines.Baseline],
    shape: Shape,
    batch: int,
    backend: Backend,
    library: Library,
    for_goals: bool,
) -> Measurement:
    def run() -> Timing:
        baseline = make()
        inputs = input_sets(shape, batch, FLOAT16, backend)
        with torch.no_grad():
            _require_same_function(name, baseline, inputs[0], shape, library)
            calls = [partial(baseline, x) for x in inputs]
            return _timing(shape, batch, name, FLOAT16, backend, calls, graph=graph)

    return Measurement(f"{shape.name} batch {batch} {name} graph={graph}", run, for_goals)


def _require_same_function(
    name: str, baseline: baselines.Baseline, qkv: Tensor, shape: Shape, library: Library
) -> None:
    """Refuse to time a baseline that computes something else."""
    if name in ("eager", "compile"):
        # The model's own code, tested where it stands; in FP16 it routes by FP16 means, and so often differently.
        return
    expected = cuda.bi_level_routing_attention(qkv, shape.attributes(), library=library).double()
    difference = (baseline(qkv).double() - expected).norm(dim=-1)
    wrong = float((difference > _BASELINE_TOLERANCE * expected.norm(dim=-1)).double().mean())
    if wrong > _WRONG_TOKENS:
        raise RuntimeError(f"{name} differs from the fused op in {100 * wrong:.1f} % of the tokens")
