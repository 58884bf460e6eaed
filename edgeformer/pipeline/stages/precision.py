"""``types`` or ``quantize``: the fused graph with every type explicit, what is quantized as Q/DQ; for engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeformer.bundle.details import QuantizeDetails
from edgeformer.bundle.files import CALIBRATION, FUSED, TYPED
from edgeformer.pipeline.plan import Quantization, TypedForm
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.records.terms import PRECISION_WORDS, TYPED_PRECISIONS

if TYPE_CHECKING:
    import onnx

    from edgeformer.graph.trained_qdq import TrainedRounding
    from edgeformer.quantization import Calibration

__all__ = ["formed", "run"]


def run(runner: Runner, form: TypedForm, quantization: Quantization | None) -> None:
    """Set the types of the fused graph, and quantize it where the precision asks for that."""
    inputs: dict[str, Any] = {
        "model": runner.sha256(FUSED),
        "convolutions": form.linears_as_convolutions,
        "one_weight_scale": form.one_weight_scale,
    }
    if quantization is None:
        runner.run("types", [TYPED], lambda: _set_types(runner, form), inputs | {"precision": form.precision})
        return
    if quantization.trained is not None:
        trained = quantization.trained
        inputs |= {"trained": trained.sha256()}
        runner.run("quantize", [TYPED], lambda: _write_trained(runner, form, trained), inputs)
        return
    inputs |= {"precision": form.precision, "recipe": quantization.recipe.model_dump(mode="json")}
    if form.precision == "int4-weights":
        inputs["int4_block"] = quantization.int4_block
    if quantization.data is not None:
        inputs["data"] = quantization.data.sha256()
    files = [TYPED] if quantization.data is None else [CALIBRATION, TYPED]
    made = _quantize if form.precision == "int8" else _quantize_typed
    runner.run("quantize", files, lambda: made(runner, form, quantization), inputs)


def _set_types(runner: Runner, form: TypedForm) -> Judged:
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.graph.types import to_float_type

    model, note = formed(load_model(runner.path(FUSED)), form)
    if form.precision != "fp32":
        model = to_float_type(model, "float16" if form.precision == "fp16" else "bfloat16")
    save_model(model, runner.path(TYPED))
    return Judged(note=f"{note}weights and activations {form.precision.upper()}; judged by the parity stage")


def _quantize(runner: Runner, form: TypedForm, quantization: Quantization) -> Judged:
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.graph.types import to_float_type
    from edgeformer.ops.bi_level_routing_attention import OP_TYPE
    from edgeformer.quantization import quantize

    assert quantization.data is not None  # the request has it for INT8
    result = quantize(
        load_model(runner.path(FUSED)),
        quantization.data,
        recipe=quantization.recipe,
        progress=runner.progress("quantize"),
    )
    result.calibration.save(runner.path(CALIBRATION))
    model, note = formed(result.model, form)
    save_model(to_float_type(model, "float16"), runner.path(TYPED))
    layers = sum(decision.quantized for decision in result.decisions if decision.op_type != OP_TYPE)
    attention = sum(decision.quantized for decision in result.decisions if decision.op_type == OP_TYPE)
    note += f"{layers} layers INT8"
    if attention:
        note += f", attention of {attention} blocks INT8"
    note += f", {len(result.calibration.returned)} returned to FP16, rest FP16"
    note += _figures(result.calibration)
    details = QuantizeDetails(
        attention="int8" if attention else "float16",
        layers=tuple(decision.record for decision in result.decisions),
        activations=result.activations,
    )
    return Judged(note=note, details=details)


def _figures(calibration: Calibration) -> str:
    """What the search reached, in words."""
    if calibration.snr is None or calibration.int8_share is None:
        return ""
    degraded = "" if calibration.snr.degraded is None else f", {calibration.snr.degraded:.1f} dB degraded"
    share = f"{100 * calibration.int8_share:.0f} % of the multiply-adds INT8"
    return f"; {share}, outputs keep {calibration.snr.clean:.1f} dB{degraded}"


def _write_trained(runner: Runner, form: TypedForm, trained: TrainedRounding) -> Judged:
    """Put the Q/DQ pairs back that the model was trained with."""
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.graph.types import to_float_type
    from edgeformer.quantization.trained import apply_trained

    result = apply_trained(load_model(runner.path(FUSED)), trained)
    model, note = formed(result.model, form)
    save_model(to_float_type(model, "float16"), runner.path(TYPED))
    layers = sum(layer.int8 for layer in result.layers)
    details = QuantizeDetails(attention="float16", layers=result.layers, activations=result.activations)
    return Judged(note=f"{note}{layers} layers INT8 as they were trained, rest FP16", details=details)


def _quantize_typed(runner: Runner, form: TypedForm, quantization: Quantization) -> Judged:
    """FP8, or the weights alone."""
    from edgeformer.graph.onnx_files import load_model, save_model
    from edgeformer.graph.types import to_float_type
    from edgeformer.quantization import quantize
    from edgeformer.quantization.typed_result import layer_record

    assert form.precision in TYPED_PRECISIONS
    result = quantize(
        load_model(runner.path(FUSED)),
        quantization.data,
        precision=form.precision,
        recipe=quantization.recipe,
        int4_block=quantization.int4_block,
        progress=runner.progress("quantize"),
    )
    if result.calibration is not None:
        result.calibration.save(runner.path(CALIBRATION))
    model, note = formed(result.model, form)
    save_model(to_float_type(model, "float16"), runner.path(TYPED))
    count = sum(decision.quantized for decision in result.decisions)
    records = (layer_record(decision, form.precision) for decision in result.decisions)
    details = QuantizeDetails(attention="float16", layers=tuple(records), activations=result.activations)
    return Judged(note=f"{note}{count} layers {PRECISION_WORDS[form.precision]}, rest FP16", details=details)


def formed(model: onnx.ModelProto, form: TypedForm) -> tuple[onnx.ModelProto, str]:
    """The graph in the form that the target's TensorRT makes most of, and what to note of it.

    Args:
        model: a float graph, or one with Q/DQ pairs.
        form: how it is written.
    """
    from edgeformer.graph.pointwise import linears_as_convolutions
    from edgeformer.graph.weight_scales import one_weight_scale

    note = ""
    if form.linears_as_convolutions:
        model, count = linears_as_convolutions(model)
        note = f"{count} Linears as 1 x 1 convolutions; " if count else ""
    if form.one_weight_scale:
        model, _ = one_weight_scale(model)
    return model, note
