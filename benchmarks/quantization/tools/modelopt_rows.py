"""NVIDIA ModelOpt (TensorRT Model Optimizer), its ONNX quantizer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import onnx

from benchmarks.quantization.tools.job import PRODUCTS, Job, Row, routing_products

__all__ = ["IMPORTS", "ROWS", "quantize"]

IMPORTS = ("modelopt.onnx.quantization",)

_FP32 = {"high_precision_dtype": "fp32"}
_TUNED = {**_FP32, "op_types_to_quantize": list(PRODUCTS), "op_types_to_exclude": ["TopK"], "calibration_method": "max"}

ROWS = {
    "default": Row(),
    "default, FP32 elsewhere": Row(options=_FP32),
    "default, max, FP32 elsewhere": Row(options={**_FP32, "calibration_method": "max"}),
    "by hand, max": Row("by hand", _TUNED),
    "by hand, max, FP16 elsewhere": Row("by hand", {**_TUNED, "high_precision_dtype": "fp16"}),
    "by hand, entropy": Row("by hand", {**_TUNED, "calibration_method": "entropy"}),
    "by hand, max, edgeformer's layers": Row("every", _TUNED),
    "by hand, max, edgeformer's layers without the stem": Row("no stem", _TUNED),
    "by hand, max, equal placement": Row("default", _TUNED),
    "by hand, entropy, equal placement": Row("default", {**_TUNED, "calibration_method": "entropy"}),
    "FP8 default": Row(options={"quantize_mode": "fp8"}),
}


def quantize(job: Job) -> None:
    """Make a row."""
    from modelopt.onnx.quantization import quantize as quantize_onnx

    options = {"quantize_mode": "int8", **job.row.options}
    if job.row.placement != "own":
        model = onnx.load(job.exported)
        topk = [node.name for node in model.graph.node if node.op_type == "TopK"]
        kept = job.others() if job.layers else routing_products(model)
        options["nodes_to_exclude"] = [*kept, *topk]
    # It writes files of its own beside the one that it is given.
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder, job.exported.name)
        os.symlink(job.exported, beside)
        quantize_onnx(
            str(beside),
            calibration_data=np.load(job.calibration),
            calibration_eps=["cpu"],
            output_path=str(job.output),
            log_level="WARNING",
            **options,
        )
