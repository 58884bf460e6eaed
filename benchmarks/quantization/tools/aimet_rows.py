"""AIMET, its ONNX quantizer."""

from __future__ import annotations

from collections.abc import Container, Mapping
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
    maker = {output: node for node in model.graph.node for output in node.output}
    chosen = [node for node in products(model) if node.name in set(job.layers)]
    read = [name for node in chosen for name in node.input[:2]]
    simulated = QuantizationSimModel(
        model, config_file=None if file is None else str(folder / file), providers=["CPUExecutionProvider"]
    )
    if job.layers:
        quantizers = simulated.qc_quantize_op_dict
        rounded = {_rounded_at(name, quantizers, maker) for name in read}
        for name, quantizer in quantizers.items():
            quantizer.enabled = name in rounded
    name = job.input_name
    simulated.compute_encodings([{name: batch} for batch in job.batches()])
    onnx.save(simulated.to_onnx_qdq(), job.output)


def _rounded_at(name: str, quantizers: Container[str], maker: Mapping[str, onnx.NodeProto]) -> str:
    """Where a tensor is rounded: AIMET has no quantizer behind what only moves values, but one in front of it."""
    while name not in quantizers and name in maker:
        name = maker[name].input[0]
    return name
