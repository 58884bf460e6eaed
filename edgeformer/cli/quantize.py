"""``edgeformer quantize``: calibrate an FP32 graph and insert Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeformer.cli._common import common_options, console, print_json, progress, simple_table, timeout_option
from edgeformer.cli._options import options_from, output_file, output_path, preprocessing_file
from edgeformer.pipeline.request import CalibrationOptions, ImageOptions
from edgeformer.supervision import final_step


@click.command("quantize")
@click.argument("model", type=output_path)
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
    data: Path | None,
    calibration_images: int,
    recipe: str | None,
    quantize_attention: bool | None,
    input_size: tuple[int, int] | None,
    preprocessing: Any,
    float_type: Any,
    calibration: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Quantize an FP32 ONNX file to INT8 with Q/DQ pairs.

    Linear layers and the dense convolutions of stem and downsampling become INT8, and with '--quantize-attention' what
    a fused attention reads; routing, softmax, norms, residuals and the classifier stay float. '--data' is required:
    nothing is ever calibrated on random images.
    """
    from edgeformer.data import open_samples
    from edgeformer.errors import InputError
    from edgeformer.graph.onnx_files import save_model
    from edgeformer.graph.types import to_float_type
    from edgeformer.pipeline.conflicts import check_inputs_stay
    from edgeformer.pipeline.model_source import OnnxFile, model_source
    from edgeformer.quantization import load_recipe, quantize

    asked = CalibrationOptions(
        data=data, calibration_images=calibration_images, recipe=recipe, quantize_attention=quantize_attention
    )
    asked.check_calibration()
    assert data is not None
    others: dict[str, Any] = {"data": data, "recipe": recipe, "preprocessing": preprocessing_file()}
    check_inputs_stay(output, model, calibration=calibration, **others)
    if calibration is not None:
        check_inputs_stay(calibration, model, **others)
    source = model_source(model, input_size=input_size, preprocessing=preprocessing)
    if not isinstance(source, OnnxFile):
        raise InputError("EF107", f"{model} is no .onnx file; 'edgeformer export' makes one of a named model")
    with progress(quiet=as_json) as bar:
        task = bar.add_task("quantize", total=None)
        result = quantize(
            source.model,
            open_samples(data, source.preprocessing, limit=calibration_images, labels=False),
            recipe=load_recipe(recipe or "default", quantize_attention=quantize_attention),
            calibration_cache=calibration,
            progress=lambda text, done, total: bar.update(task, description=text, completed=done, total=total),
        )
    typed = result.model if float_type == "float32" else to_float_type(result.model, float_type)
    with final_step():
        save_model(typed, output)
    if as_json:
        told = {"int8_share", "snr", "plain_snr", "attention_snr", "met", "returned", "front"}
        print_json(
            {
                "output": str(output),
                "calibration_reused": result.reused,
                **result.calibration.model_dump(mode="json", include=told),
                "layers": [layer.record.model_dump() for layer in result.decisions],
            }
        )
        return
    table = simple_table("layer", "op", "type", "because")
    for layer in result.decisions:
        table.add_row(layer.node, layer.op_type, "INT8" if layer.quantized else float_type, layer.because)
    console.print(table)
    how = "read from" if result.reused else "calibrated on"
    where = str(calibration) if result.reused else f"{result.calibration.images} images"
    console.print(f"{output}: {how} {where}", soft_wrap=True)
