"""``edgeformer fuse``: every routing-attention block of an ONNX graph becomes one op node, proven by execution."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from edgeformer.cli._common import common_options, console, print_json, progress, simple_table, timeout_option
from edgeformer.cli._options import options_from, output_file, output_path
from edgeformer.pipeline.conflicts import check_inputs_stay
from edgeformer.pipeline.request import FusionOptions
from edgeformer.supervision import final_step

_log = logging.getLogger(__name__)


@click.command("fuse")
@click.argument("model", type=output_path)
@click.option("--output", "-o", type=output_file, required=True, help="The fused ONNX file.")
@click.option(
    "--draws", type=click.IntRange(min=1), default=3, show_default=True, help="Random inputs each block is proven on."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of those inputs.")
@options_from(FusionOptions)
@timeout_option
@common_options
def command(
    model: Path, output: Path, draws: int, seed: int, fuse_lepe: bool, require_plugin: bool, as_json: bool
) -> None:
    """Fuse the routing-attention blocks of an ONNX file.

    A block is replaced only after the block and the op gave the same on random inputs; what cannot be proven stays
    as it was, and the report says why. The result runs in ONNX Runtime, and in TensorRT with and without the plugin.
    """
    from edgeformer.graph.fuse import fuse
    from edgeformer.graph.onnx_files import save_model
    from edgeformer.graph.prepare import open_model

    check_inputs_stay(output, model)
    original = open_model(model)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("blocks", total=None)
        result = fuse(
            original,
            draws=draws,
            seed=seed,
            fuse_lepe=fuse_lepe,
            progress=lambda text, done, total: bar.update(task, description=text, completed=done, total=total),
        )
    if require_plugin:
        result.report.check_plugin(result.op_nodes)
    for warning in result.report.warnings(result.op_nodes):
        _log.warning(warning)
    with final_step():
        save_model(result.model, output)
    if as_json:
        print_json({"output": str(output), **result.report.model_dump(mode="json")})
        return
    table = simple_table("block", "result", "attributes", "proof")
    for number, block in enumerate(result.blocks):
        attributes = ", ".join(f"{name}={value:.4g}" for name, value in (block.attributes or {}).items())
        proof = block.reason or f"error {block.proof_error:.1e}, {block.draws} draws"
        table.add_row(str(number), block.status, attributes, proof)
    if result.blocks:
        console.print(table)
    fused = sum(block.status == "fused" for block in result.blocks)
    console.print(
        f"{fused} of {len(result.blocks)} routing-attention blocks fused: {len(original.graph.node)} nodes became "
        f"{len(result.model.graph.node)} in {output}",
        soft_wrap=True,
    )
    if fuse_lepe:
        folded = sum(report.status == "fused" for report in result.lepe)
        console.print(f"LePE fused into {folded} of {len(result.lepe)} op nodes")
        for reason in dict.fromkeys(report.reason for report in result.lepe if report.reason is not None):
            console.print(f"LePE left: {reason}", soft_wrap=True)
