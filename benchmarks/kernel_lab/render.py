"""Tables and plots of reports; the README of docs/measurements/ is made here and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.kernel_lab.goals import floor_of, judge, share_of_roofline
from benchmarks.kernel_lab.records import Case, Report, Timing, load_report
from benchmarks.kernel_lab.shapes import TABLE, TINY, Shape

__all__ = ["MEASUREMENTS", "plot", "readme", "render_folder", "report_files", "shapes_of", "tables"]

_OF_OTHERS = ("quantization.json",)
MEASUREMENTS = Path(__file__).resolve().parents[2] / "docs" / "measurements"
Row = Sequence[str]
Table = tuple[Row, list[Row]]

_INTRODUCTION = """\
# Measurements on GPUs

Made by `benchmarks/gpu_check.py` (builds the kernels, compares them with float64 on the device, measures, tries engines
of TensorRT-RTX, runs compute-sanitizer) and `benchmarks/bench_kernels.py` (measures alone). This page is generated from
the JSON files beside it: `benchmarks/bench_kernels.py --render`. Times are medians of a call, replayed from CUDA graphs
unless said otherwise, over rotating inputs larger than the second-level cache. The roofline uses the copy bandwidth and
the matrix product rates measured in the same run: "bytes" counts every input read once and every output written once,
"all" takes matrix products and exponentials into account as well.

## On a machine that can fetch nothing

A call needs the working tree, a driver and a Python with a CUDA build of PyTorch, NumPy, onnx, ml_dtypes and Pillow;
TensorRT-RTX needs onnxscript as well. Compile before, where TensorRT's headers are (`scripts/setup` fetches them); the
library is 3 MB, and where it runs there need be neither nvcc nor CMake:

```console
$ cmake --preset default -B build/gpu_check/90 -DEDGEFORMER_CUDA_ARCHITECTURES=90-real -DEDGEFORMER_BUILD_TESTS=OFF
$ cmake --build build/gpu_check/90 --parallel --target edgeformer_library
```

Take the two `.so` files of that folder along, which git ignores; TensorRT-RTX needs `libtensorrt_rtx.so` beside the
library. There:

```console
$ python3 benchmarks/gpu_check.py --library build/gpu_check/90/libedgeformer_plugins.so --output results
```

Without `--library` the kernels are compiled there: with TensorRT's plugin if `third_party/tensorrt` (1 MB, ignored by
git as well) was taken along and there is CMake, else with nvcc alone. The steps come in the order of what they tell:
correctness, ceilings, what goals are set for, CUDA graphs and streams, TensorRT-RTX, compute-sanitizer, all other
measurements. Each has its share of the time, runs in a process that is watched, and writes what it found: a kernel that
hangs or ends its process costs its own figure. What there was no time for is named; a second call with
`--phase ceilings --phase benchmark` measures it, in a report of its own: what goals are set for is measured again, and
floors need ceilings of the same run.

TensorRT-RTX 1.7 builds for SM 7.5, 8.0, 8.6, 8.9, 12.0 and 12.1; on others it is asked, and the answer recorded. Where
it runs a plain engine, an engine of the op that is wrong, dies or hangs fails the check; one that it refuses does not.
It travels in parts where transfers are limited; here for a machine with Python 3.12:

```console
$ pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
    --dest build/wheels tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116
$ for wheel in build/wheels/*.whl; do unzip -q -o "$wheel" -d build/rtx; done
$ python3 -m benchmarks.kernel_lab.tensorrt_rtx build/rtx 2
```

makes `build/rtx.part0` and `build/rtx.part1`, about 33 MiB each. There, add `--tensorrt-rtx-wheel-part build/rtx.part0
--tensorrt-rtx-wheel-part build/rtx.part1` to the call.
"""
_NOTHING_YET = """
## Results

No GPU run yet; figures elsewhere are computed.
"""


def shapes_of(report: Report) -> tuple[Shape, ...]:
    """The shapes that the names in a report mean."""
    return TABLE if report.kind == "measurement" else TINY


def _markdown(header: Row, rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _us(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _find(timings: Iterable[Timing], **wanted: object) -> Timing | None:
    form = {
        "variant": "",
        "lepe": "none",
        "programmatic_launch": False,
        "graph": True,
        "input_type": "float16",
        **wanted,
    }
    for timing in timings:
        if all(getattr(timing, name) == value for name, value in form.items()):
            return timing
    return None


def tables(report: Report) -> dict[str, Table]:
    """Title to header and rows of every table of a report; those without rows are left out."""
    result = {
        "Steps": _steps(report),
        "Correctness against float64": _correctness(report),
        "The fused op": _fused(report),
        "Against PyTorch (FP16, microseconds; in brackets: how many times the fused op's)": _baselines(report),
        "Kernel variants (FP16 / INT8, microseconds)": _variants(report),
        "LePE and programmatic launch (FP16, microseconds)": _forms(report),
        "Goals": _goals(report),
    }
    return {title: table for title, table in result.items() if table[1]}


def _steps(report: Report) -> Table:
    rows: list[Row] = []
    for phase in report.phases:
        dropped = f"{len(phase.dropped)} dropped for time, first: {phase.dropped[0]}" if phase.dropped else ""
        notes = "; ".join(text for text in (phase.note, dropped) if text)
        rows.append((phase.name, phase.status, f"{phase.seconds:.1f} s", notes))
    return ("step", "result", "time", "notes"), rows


def _correctness(report: Report) -> Table:
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in report.cases:
        groups.setdefault((case.input_type, case.output_type, case.variant), []).append(case)
    rows: list[Row] = []
    for (source, target, variant), cases in sorted(groups.items()):
        errors = [case.relative_error for case in cases if case.relative_error is not None]
        lists, equal = sum(case.routing_rows for case in cases), sum(case.routing_exact for case in cases)
        wrong = sum(bool(case.fault) for case in cases)
        worst = f"{max(errors):.1e}" if errors else ""
        rows.append((source, target, variant, str(len(cases)), str(wrong), worst, f"{equal} of {lists}"))
    return ("input", "output", "kernel", "cases", "wrong", "largest relative error", "routing lists equal"), rows


def _fused(report: Report) -> Table:
    rows: list[Row] = []
    for shape in shapes_of(report):
        for batch in sorted({timing.batch for timing in report.timings}):
            for kind in ("float16", "int8"):
                timing = _find(report.timings, shape=shape.name, batch=batch, implementation="fused", input_type=kind)
                if timing is None or report.ceilings is None:
                    continue
                floor = floor_of(shape, batch, kind, report.ceilings)
                of_bytes, of_all = share_of_roofline(timing, shape, report.ceilings)
                spread = f"{_us(timing.low_us)} to {_us(timing.high_us)}"
                row = (shape.name, str(batch), kind, timing.chosen, _us(timing.median_us), spread, _us(floor.us))
                rows.append((*row, floor.bound, f"{100 * of_bytes:.0f} %", f"{100 * of_all:.0f} %"))
    header = ("shape", "batch", "input", "kernel", "us", "10 to 90 %", "floor us", "bound", "of bytes", "of all")
    return header, rows


def _baselines(report: Report) -> Table:
    columns = [(name, graph) for name in ("eager", "compile", "sdpa", "flex") for graph in (True, False)]
    rows: list[Row] = []
    for shape in shapes_of(report):
        for batch in sorted({timing.batch for timing in report.timings}):
            cells = []
            ours = {
                graph: _find(report.timings, shape=shape.name, batch=batch, implementation="fused", graph=graph)
                for graph in (True, False)
            }
            for name, graph in columns:
                found = _find(report.timings, shape=shape.name, batch=batch, implementation=name, graph=graph)
                own = ours[graph]
                ratio = f" ({found.median_us / own.median_us:.1f})" if found and own else ""
                cells.append(f"{_us(found.median_us)}{ratio}" if found else "")
            if any(cells):
                both = [_us(own.median_us) if own else "" for own in ours.values()]
                rows.append((shape.name, str(batch), *both, *cells))
    header = ("shape", "batch", "fused", "fused, no graph")
    return (*header, *(name + ("" if graph else ", no graph") for name, graph in columns)), rows


def _variants(report: Report) -> Table:
    names = ("plain", "gather", "resident")
    rows: list[Row] = []
    for shape in shapes_of(report):
        for batch in sorted({timing.batch for timing in report.timings}):
            cells = []
            for name in names:
                pair = []
                for kind in ("float16", "int8"):
                    wanted = {"shape": shape.name, "batch": batch, "implementation": "fused", "input_type": kind}
                    chosen = _find(report.timings, **wanted)
                    other = _find(report.timings, **wanted, variant=name)
                    best = chosen if chosen and chosen.chosen == name else other
                    pair.append(_us(best.median_us) + ("*" if best is chosen else "") if best else "-")
                cells.append(" / ".join(pair))
            if any(cell != "- / -" for cell in cells):
                rows.append((shape.name, str(batch), *cells))
    return ("shape", "batch", *(f"{name} (*: chosen)" for name in names)), rows


def _forms(report: Report) -> Table:
    rows: list[Row] = []
    for shape in shapes_of(report):
        for batch in sorted({timing.batch for timing in report.timings}):
            wanted = {"shape": shape.name, "batch": batch, "implementation": "fused"}
            found = [
                _find(report.timings, **wanted, **form)
                for form in ({}, {"lepe": "fused"}, {"lepe": "conv"}, {"programmatic_launch": True})
            ]
            if any(found[1:]):
                rows.append((shape.name, str(batch), *(_us(timing.median_us if timing else None) for timing in found)))
    header = ("shape", "batch", "without LePE", "LePE fused", "LePE by torch", "programmatic launch, without LePE")
    return header, rows


def _goals(report: Report) -> Table:
    rows: list[Row] = []
    for verdict in judge(report, shapes_of(report)):
        goal = verdict.goal
        scale, unit = (100.0, " %") if not goal.against else (1.0, "x")
        reached = "not measured" if verdict.reached is None else f"{scale * verdict.reached:.1f}{unit}"
        met = {None: "", True: "yes", False: "no"}[verdict.met]
        rows.append((goal.what, goal.shape, str(goal.batch), f"{scale * goal.at_least:.1f}{unit}", reached, met))
    return ("goal", "shape", "batch", "at least", "reached", "met"), rows


def plot(report: Report, path: Path) -> None:
    """Times of all implementations over the shapes, one panel a batch, as SVG; the bar of the floor stands behind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batches = sorted({timing.batch for timing in report.timings})
    bars = {"fused FP16": ("fused", "float16"), "fused INT8": ("fused", "int8"), "eager": ("eager", "float16")}
    bars |= {"torch.compile": ("compile", "float16"), "gather + SDPA": ("sdpa", "float16")}
    bars |= {"FlexAttention": ("flex", "float16")}
    shapes = [shape for shape in shapes_of(report) if any(timing.shape == shape.name for timing in report.timings)]
    # Fixed ids and no date: the same report gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "edgeformer", "font.size": 8}):
        figure, axes = pyplot.subplots(max(len(batches), 1), 1, figsize=(10, 3 * max(len(batches), 1)), squeeze=False)
        for axis, batch in zip(axes[:, 0], batches, strict=False):
            for index, (label, (implementation, kind)) in enumerate(bars.items()):
                heights = []
                for shape in shapes:
                    wanted = {"shape": shape.name, "batch": batch, "implementation": implementation, "input_type": kind}
                    found = _find(report.timings, **wanted)
                    heights.append(found.median_us if found else float("nan"))
                places = [number + (index - 2.5) * 0.13 for number in range(len(shapes))]
                axis.bar(places, heights, width=0.13, label=label)
            if report.ceilings is not None:
                floors = [floor_of(shape, batch, "float16", report.ceilings).us for shape in shapes]
                axis.hlines(floors, [n - 0.4 for n in range(len(shapes))], [n + 0.4 for n in range(len(shapes))],
                            color="black", linewidth=0.8, label="floor, FP16")  # fmt: skip
            axis.set_yscale("log")
            axis.set_ylabel("microseconds")
            axis.set_title(f"batch {batch}, from CUDA graphs" + (" (rehearsal)" if report.kind == "rehearsal" else ""))
            axis.set_xticks(range(len(shapes)), [shape.name for shape in shapes])
        axes[0, 0].legend(ncols=4)
        figure.suptitle(report.machine.name)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def describe(report: Report, plot_name: str = "") -> str:
    """One report as Markdown."""
    machine = report.machine
    heading = f"## {machine.name}, {report.started[:10]}"
    if report.kind == "rehearsal":
        heading += " (rehearsal: the times are made up)"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items()))
    clock = f", up to {machine.sm_clock_mhz:.0f} MHz" if machine.sm_clock_mhz else ""
    lines = [
        heading,
        "",
        f"- started {report.started}, `{report.command}`",
        f"- SM {machine.compute_capability // 10}.{machine.compute_capability % 10}, {machine.multiprocessors} "
        f"multiprocessors{clock}, {machine.l2_bytes / 2**20:.0f} MiB L2, {machine.memory_bytes / 2**30:.0f} GiB",
        f"- {versions}",
    ]
    if report.ceilings is not None:
        ceilings = report.ceilings
        int8 = f"{ceilings.int8_ops / 1e12:.0f} TOP/s INT8" if ceilings.int8_ops else "INT8 not offered by torch"
        lines.append(
            f"- measured ceilings: copy {ceilings.copy_bytes_per_second / 1e9:.0f} GB/s (read plus written), "
            f"{ceilings.fp16_flops / 1e12:.0f} TFLOP/s FP16, {int8}"
            + (f"; multiprocessors at {ceilings.loaded_clock_mhz:.0f} MHz" if ceilings.loaded_clock_mhz else "")
        )
    lines += [f"- TensorRT-RTX: {step}" for step in report.tensorrt_rtx[-1:]]
    if plot_name:
        lines += ["", f"![times of all implementations]({plot_name})"]
    for title, (header, rows) in tables(report).items():
        lines += ["", f"### {title}", "", _markdown(header, rows)]
    faults = [case for case in report.cases if case.fault]
    if faults:
        lines += ["", "### Wrong", ""]
        lines += [
            f"- {case.name}, {case.input_type} to {case.output_type}, {case.variant}, LePE {case.lepe_kernel}: "
            f"{case.fault}"
            for case in faults
        ]
    return "\n".join(lines) + "\n"


def readme(reports: Sequence[tuple[Report, str]]) -> str:
    """The page of docs/measurements/: every report with the name of its plot, newest first."""
    if not reports:
        return _INTRODUCTION + _NOTHING_YET
    ordered = sorted(reports, key=lambda pair: pair[0].started, reverse=True)
    return "\n".join([_INTRODUCTION, *(describe(report, name) for report, name in ordered)])


def report_files(folder: Path) -> list[Path]:
    """The reports in a folder, in which another benchmark may keep figures of its own."""
    return sorted(path for path in folder.glob("*.json") if path.name not in _OF_OTHERS)


def render_folder(folder: Path = MEASUREMENTS) -> None:
    """Write the README and the plots of all reports in ``folder``.

    Raises:
        ValueError: a report is damaged, or a rehearsal.
    """
    reports = []
    for path in report_files(folder):
        report = load_report(path)
        if report.kind != "measurement":
            raise ValueError(f"{path} is a rehearsal, whose times are made up: it does not belong here")
        image = path.with_suffix(".svg")
        plot(report, image)
        reports.append((report, image.name))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(readme(reports), encoding="utf-8")


def show(report: Report) -> None:
    """Print the tables: drawn for a terminal, as Markdown, which is shorter, for a log."""
    if not sys.stdout.isatty():
        print(describe(report))
        return
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(describe(report))
        return
    console = Console(width=150)
    for title, (header, rows) in tables(report).items():
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
