#!/usr/bin/env python3
"""Measure what each part of the default recipe brings, and what INT8 attention costs: SNR, top-1 and routing agreement
of the shipped biformer_nano with FP32, as a table.

Prints the table of calibration/README.md. Run it in the environment that scripts/setup made.
"""

from __future__ import annotations

from pathlib import Path

import onnx

import edgeformer as ef
from edgeformer.models import model_info
from edgeformer.ops.bi_level_routing_attention import OP_TYPE
from edgeformer.quantization import ObserverSettings, Override, QuantizeResult, Recipe, load_recipe
from edgeformer.runtime import OnnxSession
from edgeformer.verify import Form, top1_accuracy, verify_forms, worst

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "calibration" / "digits"


def main() -> None:
    info = model_info("biformer_nano")
    network = ef.create_model(info.name)
    ef.load_checkpoint(network, ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors")
    fused = ef.fuse(ef.export_onnx(network, input_size=info.input_size)).model
    calibration = ef.open_samples(DIGITS / "calibrate", info.preprocessing)
    evaluation = ef.open_samples(DIGITS / "evaluate", info.preprocessing)

    def row(name: str, model: onnx.ModelProto, layers: str) -> None:
        forms = [Form.from_onnx("reference", fused), Form.from_onnx(name, model)]
        found = verify_forms(forms, evaluation.batches(50)).forms[-1]
        assert found.first is not None
        assert found.accuracy is not None
        assert found.routing_first is not None
        snr, routing = worst(found.first).snr_db, 100 * found.routing_first.agreement
        print(f"| {name} | {layers} | {snr:.1f} dB | {found.accuracy.value:.1f} % | {routing:.1f} % |", flush=True)

    print(f"| {evaluation.count} images, calibrated on {calibration.count} | INT8 layers | SNR | top-1 | routing |")
    print("|---|---|---|---|---|")
    print(f"| FP32 | | | {top1_accuracy(OnnxSession(fused), evaluation.batches(50)).value:.1f} % | |")
    row("FP16", ef.to_float_type(fused, "float16"), "")

    def layers(result: QuantizeResult) -> str:
        return str(sum(item.quantized for item in result.decisions if item.op_type != OP_TYPE))

    leave_layers = Override(quantize=False, because="what does the attention cost alone?")
    only_attention = Recipe(name="d", quantize_attention=True, overrides=(leave_layers,))
    ranges_only = ObserverSettings(kind="min_max")
    recipes = {
        "min-max ranges and nothing else": Recipe(name="a", observer=ranges_only, balance=False, correct_bias=False),
        "`mse` ranges and bias correction": Recipe(name="b", balance=False),
        "balanced too": Recipe(name="c"),
        "the default recipe: sensitivity too": load_recipe(),
    }
    for name, recipe in recipes.items():
        result = ef.quantize(fused, calibration, recipe=recipe)
        row(name, result.model, layers(result))
    row("the same, FP16 between the INT8 layers", ef.to_float_type(result.model, "float16"), layers(result))
    for name, recipe in {
        "that with `--quantize-attention`": load_recipe(quantize_attention=True),
        "INT8 attention and FP16 layers": only_attention,
    }.items():
        result = ef.quantize(fused, calibration, recipe=recipe)
        row(name, ef.to_float_type(result.model, "float16"), layers(result))


if __name__ == "__main__":
    main()
