"""AIMET, its ONNX quantizer."""

from __future__ import annotations

from pathlib import Path

import onnx

from benchmarks.quantization.tools.job import Job, Row, products

__all__ = ["IMPORTS", "ROWS", "quantize"]

IMPORTS = ("aimet_onnx.quantsim",)

_PER_CHANNEL = {"config": "default_config_per_channel.json"}

ROWS = {
    "default": Row(),
    "per channel": Row(options=_PER_CHANNEL),
    "per channel, edgeformer's layers": Row("every", _PER_CHANNEL),
    "per channel, equal placement": Row("default", _PER_CHANNEL),
}


def quantize(job: Job) -> None:
    """Make a row."""
    import aimet_onnx
    from aimet_onnx.quantsim import QuantizationSimModel

    file = job.row.options.get("config")
    folder = Path(aimet_onnx.__file__).parent / "common" / "quantsim_config"
    model = onnx.load(job.exported)
    chosen = [node for node in products(model) if node.name in set(job.layers)]
    rounded = {name for node in chosen for name in node.input[:2]}
    simulated = QuantizationSimModel(
        model, config_file=None if file is None else str(folder / file), providers=["CPUExecutionProvider"]
    )
    if job.layers:
        for name, quantizer in simulated.qc_quantize_op_dict.items():
            quantizer.enabled = name in rounded
    name = job.input_name
    simulated.compute_encodings([{name: batch} for batch in job.batches()])
    onnx.save(simulated.to_onnx_qdq(), job.output)
