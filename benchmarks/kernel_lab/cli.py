"""The command lines of `benchmarks/gpu_check.py` and `benchmarks/bench_kernels.py`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from benchmarks.kernel_lab import flow, machine, render, supervisor
from benchmarks.kernel_lab.build import ROOT
from benchmarks.kernel_lab.shapes import BATCHES
from edgeformer.errors import EdgeformerError, InputError

__all__ = ["bench_kernels", "gpu_check"]


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the JSON file and the plot (default: docs/measurements; a rehearsal must name another)",
    )
    parser.add_argument(
        "--budget-seconds",
        type=float,
        default=540.0,
        help="time for everything; what does not fit is dropped and named",
    )
    parser.add_argument(
        "--build", choices=("auto", "cmake", "nvcc"), default="auto",
        help="how to compile for this GPU: with CMake and the TensorRT plugin, or the kernels alone with nvcc",
    )  # fmt: skip
    parser.add_argument("--library", type=Path, help="a compiled library, to build none")
    parser.add_argument("--shape", action="append", default=[], help="measure this shape only; may be repeated")
    parser.add_argument(
        "--batch", action="append", type=int, default=[], help="measure this batch only; may be repeated"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="no GPU: the same steps on the CPU, tiny shapes, made-up times"
    )
    return parser


def gpu_check(arguments: list[str] | None = None) -> int:
    """Build, check, sanitize, measure. Exit code 1 if something is wrong with the kernels, else as edgeformer's."""
    parser = _parser(
        "Check the fused kernels on this machine's GPU, then measure them: build for it, compare with float64, run\n"
        "compute-sanitizer, CUDA graphs and two streams, ask TensorRT-RTX, benchmark against PyTorch."
    )
    parser.add_argument(
        "--phase", action="append", default=[], choices=flow.PHASES, help="take this step only; may be repeated"
    )
    parser.add_argument(
        "--tensorrt-rtx-wheel-part", action="append", type=Path, default=[], metavar="PART",
        help="a part of a wheel with tensorrt_rtx (or of a zip of installed packages), given in order",
    )  # fmt: skip
    parsed = parser.parse_args(arguments)
    return _run(
        "gpu_check", arguments, parsed, tuple(parsed.phase) or flow.PHASES, parsed.tensorrt_rtx_wheel_part, True
    )


def bench_kernels(arguments: list[str] | None = None) -> int:
    """Measure alone; or render what was measured before."""
    parser = _parser("Measure the fused kernels on this machine's GPU, against PyTorch and against the roofline.")
    parser.add_argument("--no-baselines", action="store_true", help="measure the fused kernels alone")
    parser.add_argument(
        "--render", action="store_true", help="measure nothing: write README and plots of the reports in --output"
    )
    parsed = parser.parse_args(arguments)
    if parsed.render:
        try:
            render.render_folder(parsed.output or render.MEASUREMENTS)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return InputError.exit_code
        return 0
    return _run("bench_kernels", arguments, parsed, ("ceilings", "goals", "benchmark"), [], not parsed.no_baselines)


def _run(
    name: str,
    words: list[str] | None,
    parsed: argparse.Namespace,
    phases: tuple[str, ...],
    wheel_parts: list[Path],
    with_baselines: bool,
) -> int:
    # A machine that measures may be without a home folder, or share one: compiled baselines stay in the build tree.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build" / "inductor"))
    try:
        if parsed.rehearse and parsed.output is None:
            raise InputError("EF103", "a rehearsal needs --output: its made-up times do not go into docs/measurements")
        options = flow.Options(
            output=parsed.output or render.MEASUREMENTS,
            command=shlex.join([f"benchmarks/{name}.py", *(sys.argv[1:] if words is None else words)]),
            phases=phases,
            budget_seconds=parsed.budget_seconds,
            rehearse=parsed.rehearse,
            library=parsed.library,
            build_route=parsed.build,
            shapes=tuple(parsed.shape),
            batches=tuple(parsed.batch) or BATCHES,
            with_baselines=with_baselines,
            wheel_parts=tuple(wheel_parts),
        )
        flow.check_options(options)
        if not options.rehearse:
            machine.require_gpu()
        found = supervisor.supervise(options)
    except EdgeformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(found, int):
        return found
    report, path = found
    if report.timings:
        try:
            render.plot(report, path.with_suffix(".svg"))
        except Exception as error:  # the figures are on disk: a picture is no reason to lose the tables
            print(f"no plot: {error}; bench_kernels.py --render draws it where matplotlib is", file=sys.stderr)
    render.show(report)
    print(flow.summary(report, path))
    return 1 if report.failed else 0
