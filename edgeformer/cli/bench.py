"""``edgeformer bench``: how long models take, and which of them is faster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from edgeformer.cli._common import common_options, console, print_json, progress, simple_table
from edgeformer.cli._options import output_file, output_folder, output_path
from edgeformer.text import printable

if TYPE_CHECKING:
    from edgeformer.pipeline.benchmark import BenchResult
    from edgeformer.records.latency import (
        LatencyFigures,
        LatencyReport,
        LoadgenResult,
        Percentile,
    )

_TIMINGS = {"end_to_end": "end to end", "gpu": "GPU"}
# The colour of a verdict, and the word between it and what the model was compared with.
_VERDICTS = {
    "faster": ("green", "than"),
    "slower": ("red", "than"),
    "no difference": ("default", "from"),
    "not decided": ("yellow", "against"),
}


@click.command("bench")
@click.argument("models", nargs=-1, required=True, type=output_path, metavar="BUNDLE|ENGINE|ONNX...")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    multiple=True,
    help="Images a run; may be given several times, advice is for the first.  [default: what the model is made for]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Time of timed runs, for each model at each batch.",
)
@click.option(
    "--backend",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    help="What runs the models.  [default: TensorRT where there are an engine and a GPU for it, else ONNX Runtime]",
)
@click.option("--device", type=click.IntRange(min=0), default=0, show_default=True, help="CUDA device.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of ONNX Runtime.  [default: one a core]")
@click.option(
    "--cuda-graphs",
    type=click.Choice(["both", "on", "off"]),
    default="both",
    show_default=True,
    help="Time TensorRT with CUDA graphs, without, or both.",
)
@click.option(
    "--baseline",
    type=click.Choice(["pytorch", "torch-compile", "onnxruntime"]),
    multiple=True,
    help="Time the first bundle's model in this, too; may be given several times.",
)
@click.option("--checkpoint", type=output_path, help="The checkpoint for PyTorch, if it was moved.")
@click.option(
    "--loadgen",
    type=click.Choice(["singlestream", "multistream", "offline"]),
    help="Run MLPerf's LoadGen in this scenario, too.",
)
@click.option("--loadgen-logs", type=output_folder, help="Folder for LoadGen's logs.")
@click.option("--export-times", type=output_file, help="Write every timed run to this file, as trtexec does.")
@click.option("--no-record", is_flag=True, help="Leave the bundles' manifests as they are.")
@click.option("--sign", type=output_path, help="Your private key: sign the bundles again with the figures in them.")
@click.option("--trust-bundle", is_flag=True, help="Run engines and plugin libraries: you trust whoever made them.")
@click.option("--key", type=output_path, help="Public key of their maker (PEM, Ed25519): the signatures have to hold.")
@common_options
def command(
    models: tuple[Path, ...],
    batch: tuple[int, ...],
    baseline: tuple[Any, ...],
    no_record: bool,
    sign: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Time models, and say which is faster.

    Bundles, engines and ONNX files run in turns, block by block (A B B A), after a warm-up. "faster" and "slower" are
    said where the whole 95 % interval of the ratio is beyond 2 % and beyond what the first model, loaded twice, differs
    from itself in the same run; under the load of other processes nothing is decided. A percentile that has too few
    samples is not told.

    The figures and the advice are written into the bundles' manifests. Without a GPU ONNX Runtime is timed, and the
    first line says so.
    """
    from edgeformer.latency.bench import Settings
    from edgeformer.pipeline.benchmark import BenchRequest, bench_models

    def passphrase() -> str:
        answer: str = click.prompt(f"passphrase of {sign}", hide_input=True, err=True)
        return answer

    taken = ("seconds", "backend", "device", "threads", "cuda_graphs")
    request = BenchRequest(
        paths=models,
        settings=Settings(batches=batch, **{name: options.pop(name) for name in taken}),
        baselines=baseline,
        record=not no_record,
        sign=sign,
        passphrase=passphrase,
        **options,
    )
    with progress(quiet=as_json) as bar:
        task = bar.add_task("warm-up", total=None)
        result = bench_models(
            request, progress=lambda text, done, total: bar.update(task, description=text, completed=done, total=total)
        )
    if as_json:
        print_json(_document(result))
    else:
        _print(result)


def _document(result: BenchResult) -> dict[str, Any]:
    return {
        "timed": _first_line(result),
        **result.report.model_dump(mode="json"),
        "recorded": [str(path) for path in result.recorded],
        "not_recorded": {str(path): reason for path, reason in result.not_recorded.items()},
    }


def _first_line(result: BenchResult) -> str:
    """What was timed, before any figure of it."""
    figures = [one for one in result.report.figures if one.kind == "model"]
    on_gpu = [one for one in figures if one.backend == "tensorrt"]
    if not on_gpu:
        why = f" ({result.gpu_problem})" if result.gpu_problem else ""
        return f"ONNX Runtime on the CPU was timed, no GPU{why}: this says nothing of a GPU's speed"
    if len(on_gpu) < len(figures):
        others = dict.fromkeys(one.name for one in figures if one.backend != "tensorrt")
        return f"TensorRT on {on_gpu[0].device} was timed, and ONNX Runtime on the CPU for {', '.join(others)}"
    return f"TensorRT on {on_gpu[0].device} was timed"


def _print(result: BenchResult) -> None:
    report = result.report
    console.print(_first_line(result), soft_wrap=True)
    _print_figures(report)
    _print_comparisons(report)
    for line in _lines(report):
        console.print(line, soft_wrap=True)
    for one in report.loadgen:
        _print_loadgen(one)
    if report.advice is not None:
        console.print(f"advice      {report.advice.text}", soft_wrap=True)
    for path in result.recorded:
        console.print(f"recorded    {path}", soft_wrap=True)
    for path, reason in result.not_recorded.items():
        console.print(f"not recorded in {path}: {reason}", soft_wrap=True)


def _print_figures(report: LatencyReport) -> None:
    table = simple_table("milliseconds", "time", "p50", "p90", "p99", "max", "images/s")
    for column in table.columns:
        column.no_wrap = True
    few = False
    for one in report.figures:
        if one.kind == "control":
            continue
        name = f"{one.name} x{one.batch}" + (", graphs" if one.cuda_graphs else "")
        for timing, times in (("end to end", one.end_to_end), ("GPU", one.gpu)):
            if times is not None:
                # Digits that say nothing would be cut off in a narrow terminal.
                digits = 1 if one.images_per_second < 1000 else 0
                rate = f"{one.images_per_second:.{digits}f}" if times is one.end_to_end else ""
                percentiles = (times.p50, times.p90, times.p99, times.max)
                few |= any(percentile.ms is None for percentile in percentiles)
                shown = [_percentile(percentile, times.samples) for percentile in percentiles]
                table.add_row(name, timing, *shown, rate)
                name = ""
    console.print(table)
    if few:
        console.print("a/b: not enough samples, a where the percentile needs b (--seconds)")


def _percentile(one: Percentile, samples: int) -> str:
    return f"{samples}/{one.needs}" if one.ms is None else f"{one.ms:.4g}"


def _print_comparisons(report: LatencyReport) -> None:
    for one in report.comparisons:
        verdict, word = _VERDICTS[one.verdict]
        of = f"{_TIMINGS[one.timing]}, {one.statistic}, batch {one.batch}" + (", graphs" if one.cuda_graphs else "")
        figures = ""
        if one.ratio is not None and one.low is not None and one.high is not None:
            figures = f": {one.ratio:.3f} times ({one.low:.3f} to {one.high:.3f}; limit {100 * one.limit:.1f} %)"
        reason = f", because {one.reason}" if one.reason else ""
        text = Text(printable(one.name) + " ").append(one.verdict, verdict)
        text.append(f" {word} {printable(one.reference)}, {of}{figures}{printable(reason)}", "default")
        console.print(text, soft_wrap=True)


def _lines(report: LatencyReport) -> Iterator[str]:
    """What the tables have no room for."""
    for one in report.figures:
        if one.kind != "control":
            yield from _lines_of(one)
    load, machine = report.load, report.machine
    busy = f"others kept {load.cores:.2f} of {load.of_cores} processors busy"
    if load.disturbed:
        busy += f", too much in {load.disturbed} of {load.rounds} rounds"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    mode = "" if machine.power_mode is None else f", power mode {machine.power_mode}"
    yield f"machine     {machine.gpu or machine.processor}{mode}; {busy}"
    yield f"versions    {versions}"


def _lines_of(one: LatencyFigures) -> Iterator[str]:
    title = f"{one.name}, batch {one.batch}" + (", graphs" if one.cuda_graphs else "")
    known = [f"CV {100 * one.end_to_end.cv:.1f} %"]
    for size, word in ((one.host_memory_bytes, "host"), (one.device_memory_bytes, "device")):
        if size is not None:
            known.append(f"{size / 1e6:.1f} MB of {word} memory")
    state = one.state
    if state.clock_mhz is not None:
        known.append(f"{state.clock_mhz.mean:.0f} MHz")
    if state.temperature_c is not None:
        known.append(f"{state.temperature_c.greatest:.0f} °C at most")
    if state.energy is not None:
        known.append(f"{1e3 * state.energy.joules_per_image:.3g} mJ an image ({state.energy.source})")
    yield f"{title}: {', '.join(known)}"
    if one.gpu is None:
        yield f"{title}: GPU time not measured: {one.gpu_note}"
    for note in (*one.notes, *([f"CUDA graphs: {one.graph_state}"] if one.cuda_graphs else [])):
        yield f"{title}: {note}"


def _print_loadgen(result: LoadgenResult) -> None:
    verdict = "valid" if result.valid else "not valid"
    console.print(f"LoadGen     {result.name}, {result.scenario}: {verdict}; logs in {result.logs}", soft_wrap=True)
    for name, value in result.figures.items():
        console.print(f"  {name}: {value:g}")
