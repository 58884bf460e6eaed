"""``edgeformer quantize``: calibrate an FP32 graph and insert Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from edgeformer.cli._common import common_options, console, print_json, progress, simple_table, timeout_option
from edgeformer.cli._options import options_from, output_file, output_path, preprocessing_file
from edgeformer.errors import InputError
from edgeformer.pipeline.request import CalibrationOptions, ImageOptions
from edgeformer.records.terms import CALIBRATED, QUANTIZED, Precision, TypedPrecision
from edgeformer.supervision import final_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeformer.pipeline.model_source import OnnxFile
    from edgeformer.progress import Progress
    from edgeformer.quantization import Calibration, Decision, QuantizeResult, TypedResult


@click.command("quantize")
@click.argument("model", type=output_path)
@click.option(
    "--precision",
    type=click.Choice(QUANTIZED),
    default="int8",
    show_default=True,
    help="What becomes of the layers; int8-weights and int4-weights: of the weights of Linears alone.",
)
@options_from(CalibrationOptions)
@options_from(ImageOptions)
@click.option(
    "--float-type",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    default="float16",
    show_default=True,
    help="Type of everything that stays float.",
)
@click.option("--calibration", type=output_file, help="A calibration.json: read if it is there and fits, else written.")
@click.option("--output", "-o", type=output_file, required=True, help="The quantized ONNX file.")
@timeout_option
@common_options
def command(
    model: Path,
    precision: Precision,
    data: Path | None,
    calibration_images: int,
    recipe: str | None,
    quantize_attention: bool | None,
    target_snr: float | None,
    degrade: bool | None,
    int4_block: int | None,
    input_size: tuple[int, int] | None,
    preprocessing: Any,
    float_type: Any,
    calibration: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Quantize an FP32 ONNX file with Q/DQ pairs.

    To INT8 become Linear layers and the dense convolutions of stem and downsampling, and with '--quantize-attention'
    what a fused attention reads; to FP8 Linear layers. Of these the weights alone become INT8 or INT4 with
    int8-weights and int4-weights. Routing, softmax, norms, residuals and the classifier stay float. INT8 and FP8 need
    '--data': nothing is ever calibrated on random images.
    """
    from edgeformer.graph.onnx_files import save_model
    from edgeformer.graph.types import to_float_type
    from edgeformer.pipeline.conflicts import check_inputs_stay
    from edgeformer.pipeline.model_source import OnnxFile, model_source
    from edgeformer.quantization.typed_result import layer_record

    asked = CalibrationOptions(
        data=data,
        calibration_images=calibration_images,
        recipe=recipe,
        quantize_attention=quantize_attention,
        target_snr=target_snr,
        degrade=degrade,
        int4_block=int4_block,
    )
    asked.check_quantization(precision)
    _check_options(precision, float_type, data, calibration)
    others: dict[str, Any] = {"data": data, "recipe": recipe, "preprocessing": preprocessing_file()}
    check_inputs_stay(output, model, calibration=calibration, **others)
    if calibration is not None:
        check_inputs_stay(calibration, model, **others)
    source = model_source(model, input_size=input_size, preprocessing=preprocessing)
    if not isinstance(source, OnnxFile):
        raise InputError("EF107", f"{model} is no .onnx file; 'edgeformer export' makes one of a named model")
    with progress(quiet=as_json) as bar:
        task = bar.add_task("quantize", total=None)
        result = _quantized(
            source,
            asked,
            precision,
            calibration,
            float_type,
            lambda text, done, total: bar.update(task, description=text, completed=done, total=total),
        )
    typed = result.model if float_type == "float32" else to_float_type(result.model, float_type)
    with final_step():
        save_model(typed, output)
    found = result.calibration
    if as_json:
        told = {"int8_share", "snr", "plain_snr", "attention_snr", "met", "returned", "front"}
        print_json(
            {
                "output": str(output),
                "precision": precision,
                "calibration_reused": result.reused,
                **({} if found is None else found.model_dump(mode="json", include=told)),
                "layers": [layer_record(layer, precision).model_dump() for layer in result.decisions],
            }
        )
        return
    table = simple_table("layer", "op", "type", "because")
    for layer in result.decisions:
        table.add_row(layer.node, layer.op_type, precision.upper() if layer.quantized else float_type, layer.because)
    console.print(table)
    if found is None:
        console.print(f"{output}: no calibration needed", soft_wrap=True)
        return
    how = "read from" if result.reused else "calibrated on"
    where = str(calibration) if result.reused else f"{found.images} images"
    if precision == "int8":
        _print_front(found, result.decisions)
    console.print(f"{output}: {how} {where}", soft_wrap=True)


def _print_front(found: Calibration, decisions: Sequence[Decision]) -> None:
    """What the return of one layer after the other buys; nothing where nothing was searched."""
    if not found.front:
        return
    names = {decision.output: decision.node for decision in decisions}
    table = simple_table("in float, from the top", "multiply-adds INT8", "clean", "degraded")
    for point in found.front[:-1]:
        name = "none" if point.returned is None else names[point.returned]
        kept = point.returned in {None, *(layer.output for layer in found.returned)}
        degraded = "" if found.snr is None or found.snr.degraded is None else f"{point.degraded_db:.1f} dB"
        table.add_row(
            name if kept else f"({name})", f"{100 * point.int8_share:.1f} %", f"{point.clean_db:.1f} dB", degraded
        )
    last = found.front[-1]
    degraded = "" if found.snr is None or found.snr.degraded is None else f"{last.degraded_db:.1f} dB"
    table.add_row(
        "with weights and biases chosen", f"{100 * last.int8_share:.1f} %", f"{last.clean_db:.1f} dB", degraded
    )
    console.print(table)


def _check_options(precision: Precision, float_type: str, data: Path | None, calibration: Path | None) -> None:
    """Refuse what has no use, or would spoil the result, with a precision besides INT8."""
    if precision not in CALIBRATED and (data is not None or calibration is not None):
        option = "--data" if data is not None else "--calibration"
        raise InputError("EF104", f"{option} with precision {precision}, which calibrates nothing: leave it out")
    if precision != "int8" and float_type == "bfloat16":
        raise InputError(
            "EF548",
            f"the scales of {precision} are exact in FP16, and BF16 would round them again: give --float-type float16 "
            "or float32",
        )


def _quantized(
    source: OnnxFile,
    asked: CalibrationOptions,
    precision: Precision,
    calibration: Path | None,
    float_type: str,
    told: Progress,
) -> QuantizeResult | TypedResult:
    from edgeformer.data import open_samples
    from edgeformer.graph.qdq import BFLOAT16_SCALE_BITS, SCALE_BITS
    from edgeformer.quantization import load_recipe, quantize
    from edgeformer.quantization.weight_only import DEFAULT_INT4_BLOCK

    recipe = load_recipe(
        asked.recipe or "default",
        quantize_attention=asked.quantize_attention,
        degrade=asked.degrade,
        target_snr_db=asked.target_snr,
    )
    samples = None
    if precision in CALIBRATED:
        assert asked.data is not None  # check_quantization saw it
        samples = open_samples(
            asked.data, source.preprocessing, limit=asked.calibration_images, labels=recipe.max_drop is not None
        )
    if precision == "int8":
        bits = BFLOAT16_SCALE_BITS if float_type == "bfloat16" else SCALE_BITS
        return quantize(
            source.model, samples, recipe=recipe, calibration_cache=calibration, scale_bits=bits, progress=told
        )
    return quantize(
        source.model,
        samples,
        precision=cast(TypedPrecision, precision),
        recipe=recipe,
        calibration_cache=calibration,
        int4_block=asked.int4_block or DEFAULT_INT4_BLOCK,
        progress=told,
    )
