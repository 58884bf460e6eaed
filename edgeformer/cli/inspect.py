"""``edgeformer inspect``: what an ONNX file, an engine or a bundle holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeformer.cli._common import common_options, console, error_document, print_error, print_json, simple_table
from edgeformer.cli._options import output_path
from edgeformer.errors import InputError
from edgeformer.records.terms import Normalization
from edgeformer.text import shortened

if TYPE_CHECKING:
    import onnx

    from edgeformer.bundle import Manifest
    from edgeformer.graph.summary import GraphSummary

_PIXELS: dict[Normalization, str] = {
    "mean_std": "(x / 255 - mean) / std",
    "scale": "x / 255",
    "none": "pixels 0 to 255",
}


@click.command("inspect")
@click.argument("path", type=output_path, required=False)
@click.option(
    "--compare",
    is_flag=True,
    help="For a bundle whose build did not: build its engine without the plugin (or with it), and compare the two.",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of a bundle's manifest instead.")
@common_options
def command(path: Path | None, compare: bool, schema: bool, as_json: bool) -> None:
    """Summarize an ONNX file, an engine or a bundle.

    An ONNX file that no other command takes (exported in training mode, with NaN weights, optimized by ONNX Runtime) is
    summarized, too, and then refused with the reason.

    A bundle's files are checked against their hashes, and its report shows what the plugin saves: layers, memory and
    build time of the engine with it and without it.
    """
    if schema:
        if path is not None or compare:
            raise InputError("EF104", "--schema prints the schema of every manifest: leave out PATH and --compare")
        from edgeformer.bundle import manifest_schema

        print_json(manifest_schema())
    elif path is None:
        raise InputError("EF103", "inspect needs a PATH: an ONNX file, an engine or a bundle; or --schema")
    elif path.is_dir():
        _bundle(path, compare, as_json)
    elif compare:
        raise InputError("EF107", f"{path}: --compare builds from a bundle's graph; name the bundle's folder")
    elif path.suffix.lower() == ".onnx":
        _onnx(path, as_json)
    else:
        _engine(path, as_json)


def _bundle(path: Path, compare: bool, as_json: bool) -> None:
    from edgeformer.bundle import open_bundle
    from edgeformer.bundle.contents import unlisted_files, unlisted_line
    from edgeformer.bundle.files import REPORT, SIGNATURE
    from edgeformer.bundle.report_file import report_state
    from edgeformer.cli._summary import print_summary
    from edgeformer.pipeline.stages.plugin_comparison import compare_bundle, recorded_comparison

    manifest = open_bundle(path)
    unlisted = unlisted_files(path, set(manifest.files))
    signed = (path / SIGNATURE).is_file()
    report = report_state(path)
    comparison = compare_bundle(path, manifest) if compare else recorded_comparison(manifest)
    if as_json:
        both = None
        if comparison is not None:
            both = {**comparison.model_dump(mode="json"), "activation_ratio": comparison.ratio("activation_bytes")}
        more = {"signed": signed, "report": report, "unlisted": list(unlisted), "plugin_comparison": both}
        print_json({"kind": "bundle", **manifest.model_dump(mode="json"), **more})
        return
    model = manifest.model
    console.print(
        f"{model.name} as {manifest.precision.upper()} for {manifest.target.name}, made {manifest.created} by "
        f"edgeformer {manifest.edgeformer}; all hashes match",
    )
    for line in application_lines(manifest):
        console.print(line, soft_wrap=True)
    table = simple_table("file", "MB", "SHA-256")
    for name, record in manifest.files.items():
        table.add_row(name, f"{record.size / 1e6:.2f}", record.sha256[:16])
    console.print(table)
    if signed:
        console.print("signed; `edgeformer verify --key FILE` tells whether the signature holds")
    if report == "stale":
        console.print(f"{REPORT} shows another manifest: `edgeformer report {path}` makes it anew", soft_wrap=True)
    if unlisted:
        console.print(unlisted_line(unlisted), soft_wrap=True)
    print_summary(console, path, manifest)
    if comparison is not None:
        sides = simple_table("engine", "with plugin", "without", "ratio")
        for row in comparison.rows():
            sides.add_row(*row)
        console.print(sides)


def application_lines(manifest: Manifest) -> Iterator[str]:
    """What a program has to know: the task, the classes, and what the network takes and gives."""
    application = manifest.application
    labels = application.labels
    named = "no labels" if labels is None else f"{len(labels)} labels: {shortened(', '.join(labels), 60)}"
    yield f"task        {application.task}, {named}"
    image = application.image
    for word, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
        for tensor in tensors:
            line = f"{word:<12}{tensor.name}: {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
            if image is not None and (word, tensor.name) == ("input", image.input):
                pixels = _PIXELS[image.normalization]
                line += f", {image.layout}, {image.channels} {pixels}, {image.resize_mode}"
                line += "" if image.crop_fraction == 1 else f", centre crop of {image.crop_fraction:g}"
            yield line


def _onnx(path: Path, as_json: bool) -> None:
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.graph.summary import summarize

    model = load_model(path)
    summary = summarize(model)
    fault = _fault(model, path)
    if as_json:
        document = {"kind": "onnx", **summary.to_dict()}
        # One document, with what the file holds and why no other command takes it.
        print_json(document if fault is None else {**document, "error": error_document(fault)})
    else:
        _print_summary(path, summary)
    if fault is not None:
        print_error(fault)
        raise click.exceptions.Exit(fault.exit_code)


def _fault(model: onnx.ModelProto, path: Path) -> InputError | None:
    """Why the file cannot be taken by the commands that do something with it; None where it can."""
    from edgeformer.graph.prepare import prepared

    try:
        prepared(model)
    except InputError as error:
        return InputError(error.code, f"{path}: {error}")
    return None


def _print_summary(path: Path, summary: GraphSummary) -> None:
    opsets = ", ".join(f"{domain} {version}" for domain, version in summary.opsets.items())
    console.print(f"{path}: made by {summary.producer}; opsets {opsets}", soft_wrap=True)
    for word, values in (("input", summary.inputs), ("output", summary.outputs)):
        for value in values:
            console.print(f"{word:<8}{value['name']}  {value['type']} {value['shape']}")
    weights = ", ".join(f"{size / 1e6:.2f} MB {kind}" for kind, size in summary.weights.items()) or "none"
    console.print(f"weights {weights}")
    table = simple_table("op", "nodes")
    for name, count in summary.nodes.items():
        table.add_row(name, str(count))
    console.print(table)
    for block in summary.blocks:
        attributes = ", ".join(f"{name}={value}" for name, value in block.items() if name != "node")
        console.print(f"{block['node']}: {attributes}", soft_wrap=True)


def _engine(path: Path, as_json: bool) -> None:
    from edgeformer.engine.inspect import inspect_engine

    facts = inspect_engine(path)
    if facts.flavour is None:
        raise InputError(
            "EF107", f"{path} is no bundle, no .onnx file, and no engine that is known: {'; '.join(facts.notes)}"
        )
    if as_json:
        print_json({"kind": "engine", **facts.model_dump(mode="json")})
        return
    version = f"{facts.flavour} {facts.tensorrt_version}" if facts.flavour else "unknown TensorRT"
    console.print(f"{path}: {facts.size_bytes / 1e6:.2f} MB, {version}, SHA-256 {facts.sha256}")
    if facts.report is not None:
        _print_report(facts.report)
    for note in facts.notes:
        console.print(note)


def _print_report(report: Any) -> None:
    table = simple_table("", "")
    table.show_header = False
    activations = "not said" if report.activation_bytes is None else f"{report.activation_bytes / 1e6:.2f} MB"
    weights = "not said" if report.weight_bytes is None else f"{report.weight_bytes / 1e6:.2f} MB"
    rows = {
        "built for": f"{report.target} (SM {', '.join(map(str, report.sms))})",
        "parsed layers": str(report.parsed_layers),
        "plugin layers": f"{report.plugin.in_network} for {report.op_nodes} op nodes ({report.plugin.source})",
        "activation memory": activations,
        "weight memory": weights,
        "build": f"{report.build_seconds:.1f} s, {report.peak_host_bytes / 2**30:.2f} GiB of host memory at most",
        **{f"profile of {name}": str(shapes) for name, shapes in report.profile.items()},
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
