#!/usr/bin/env python3
"""Measure what the plugin saves: activation memory, layers and build time of TensorRT-RTX engines with it and without.

Prints the tables of docs/activation_memory.md; no GPU is needed, TensorRT-RTX builds for one that is not here. Run it
in the environment that scripts/setup made; the models have random weights, which change none of these figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import torch

import edgeformer as ef
from edgeformer.engine.builder import BatchProfile, EngineReport, build_engine
from edgeformer.engine.targets import get_target
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.pointwise import linears_as_convolutions
from edgeformer.graph.qdq import AttentionSite, attention_site, insert_qdq
from edgeformer.graph.types import to_float_type
from edgeformer.graph.weight_scales import one_weight_scale
from edgeformer.models import model_info
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.quantization.policy import decide

MODELS = ("biformer_tiny", "biformer_small", "biformer_base")
PRECISIONS = ("fp32", "fp16", "int8")
BATCHES = ("1", "1:8:32")


@dataclass(frozen=True)
class Form:
    """A way to build a model: what `edgeformer build` is asked for.

    Attributes:
        title: column of the table.
        fused: routing attention fused into op nodes; otherwise the exporter's graph.
        plugin: op nodes run in the plugin, otherwise from their ONNX body.
        fuse_lepe: LePE inside the op.
        convolutions: Linears as 1 x 1 convolutions.
        quantize_attention: the op reads INT8.
        one_weight_scale: INT8 weights as a build for TensorRT-RTX has them; otherwise a scale for each channel.
    """

    title: str
    fused: bool = True
    plugin: bool = True
    fuse_lepe: bool = False
    convolutions: bool = False
    quantize_attention: bool = False
    one_weight_scale: bool = True


EXPORTED = Form("exported graph", fused=False, plugin=False)
BODY = Form("op's body", plugin=False)
PLUGIN = Form("plugin")
LEPE = Form("`--fuse-lepe`", fuse_lepe=True)
FLOAT_FORMS = (
    EXPORTED,
    BODY,
    PLUGIN,
    Form("op's body, `--linears-as-convolutions`", plugin=False, convolutions=True),
    LEPE,
    Form("`--linears-as-convolutions`", convolutions=True),
    Form("both", fuse_lepe=True, convolutions=True),
)
# All Linears are INT8: none is left to become a convolution.
INT8_FORMS = (
    EXPORTED,
    BODY,
    PLUGIN,
    Form("a weight scale for each channel", one_weight_scale=False),
    LEPE,
    Form("`--quantize-attention`", quantize_attention=True),
    Form("both", fuse_lepe=True, quantize_attention=True),
)
Row = dict[Form, EngineReport]


@cache
def exported(name: str) -> onnx.ModelProto:
    """The model as the exporter gives it."""
    torch.manual_seed(0)
    info = model_info(name)
    return ef.export_onnx(ef.create_model(name), input_size=info.input_size)


@cache
def fused(name: str, fuse_lepe: bool) -> onnx.ModelProto:
    """The model with op nodes."""
    return ef.fuse(exported(name), fuse_lepe=fuse_lepe).model


def attention_sites(model: onnx.ModelProto) -> list[AttentionSite]:
    """Every op node, to be quantized."""
    index = GraphIndex(model)
    found = [attention_site(index, node) for node in model.graph.node if is_op(node)]
    return [site for site in found if isinstance(site, AttentionSite)]


def typed(name: str, precision: str, form: Form) -> onnx.ModelProto:
    """The graph as `build` types it. Where Q/DQ pairs stand decides about memory, their scales do not."""
    model = fused(name, form.fuse_lepe) if form.fused else exported(name)
    if precision == "int8":
        sites = [decision.site for decision in decide(model) if decision.quantized and decision.site is not None]
        attention = attention_sites(model) if form.quantize_attention else []
        ranges = {site.activation: 1.0 for site in sites}
        ranges |= {part.name: 1.0 for site in attention for part in site.parts}
        model = insert_qdq(model, sites, ranges, attention=attention)
        if form.one_weight_scale:
            model, _ = one_weight_scale(model)
    if form.convolutions:
        model, _ = linears_as_convolutions(model)
    return model if precision == "fp32" else to_float_type(model, "float16")


def measure(name: str, precision: str, batch: str, target: str, aux_streams: int | None) -> Row:
    """The engine's report for each form."""
    return {
        form: build_engine(
            typed(name, precision, form),
            target=get_target(target),
            batch=BatchProfile.parse(batch),
            use_plugin=form.plugin,
            max_aux_streams=aux_streams,
        ).report
        for form in (INT8_FORMS if precision == "int8" else FLOAT_FORMS)
    }


def memory(row: Row) -> Iterator[str]:
    """Cells of the table of memory: MB, and the ratio to the exported graph's and to the op's body's engine."""
    sizes = {form: report.activation_bytes or 0 for form, report in row.items()}
    for form, size in sizes.items():
        cell = f"{size / 1e6:.2f}"
        yield f"{cell} ({size / sizes[EXPORTED]:.2f}x, {size / sizes[BODY]:.2f}x)" if form.plugin else cell


def work(row: Row) -> Iterator[str]:
    """Cells of the table of layers and build time."""
    for form in (EXPORTED, BODY, PLUGIN):
        report = row[form]
        yield f"{report.parsed_layers} / {report.engine_layers} / {report.build_seconds:.1f} s"


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table_head(forms: tuple[Form, ...]) -> str:
    titles = ("model", "type", "batch", *(form.title for form in forms))
    return table_row(*titles) + "\n" + "|---" * len(titles) + "|"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batches", nargs="+", default=list(BATCHES))
    parser.add_argument("--target", default="rtx-40")
    parser.add_argument("--aux-streams", type=int, help="as `edgeformer build` has it")
    parser.add_argument("--json", type=Path, help="write every engine's report there")
    options = parser.parse_args()

    rows: dict[tuple[str, str, str], Row] = {}
    for forms, precisions in ((FLOAT_FORMS, ("fp32", "fp16")), (INT8_FORMS, ("int8",))):
        chosen = [precision for precision in precisions if precision in options.precisions]
        if not chosen:
            continue
        print(table_head(forms), flush=True)
        for name in options.models:
            for precision in chosen:
                for batch in options.batches:
                    key = (name, precision, batch)
                    rows[key] = measure(*key, options.target, options.aux_streams)
                    print(table_row(name, precision.upper(), batch, *memory(rows[key])), flush=True)
        print()
    print("Parsed layers / engine layers / build:\n")
    print(table_head((EXPORTED, BODY, PLUGIN)))
    for (name, precision, batch), row in rows.items():
        print(table_row(name, precision.upper(), batch, *work(row)))
    if options.json is not None:
        written = [
            {
                "model": name,
                "precision": precision,
                "batch": batch,
                "target": options.target,
                "reports": {form.title: report.model_dump(mode="json") for form, report in row.items()},
            }
            for (name, precision, batch), row in rows.items()
        ]
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
