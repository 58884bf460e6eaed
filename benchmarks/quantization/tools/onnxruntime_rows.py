"""ONNX Runtime's own quantizer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.quantization.tools.job import PRODUCTS, Job, Reader, Row

__all__ = ["IMPORTS", "ROWS", "quantize"]

IMPORTS = ("onnxruntime.quantization.shape_inference",)

# What a user comes to who reads the documentation with TensorRT in mind: symmetric, weights per channel, products
# alone, float biases, no rounding between a product and what follows it.
_TUNED = {
    "per_channel": True,
    "op_types_to_quantize": list(PRODUCTS),
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "MatMulConstBOnly": True,
        "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    },
}
_PERCENTILE = {"method": "Percentile", "more": {"CalibPercentile": 99.99, "CalibTensorRangeSymmetric": True}}

ROWS = {
    "default": Row(),
    "default, symmetric, per channel": Row(
        options={"per_channel": True, "extra_options": {"ActivationSymmetric": True, "QuantizeBias": False}}
    ),
    "by hand, min-max": Row(options=_TUNED, quick=True),
    "by hand, entropy": Row(options={**_TUNED, "method": "Entropy"}),
    "by hand, percentile 99.99": Row(options={**_TUNED, **_PERCENTILE}),
    "by hand, min-max, edgeformer's layers": Row("every", _TUNED, quick=True),
    "by hand, min-max, edgeformer's layers without the stem": Row("no stem", _TUNED),
    "by hand, min-max, equal placement": Row("default", _TUNED, quick=True),
    "by hand, percentile 99.99, equal placement": Row("default", {**_TUNED, **_PERCENTILE}),
}


def quantize(job: Job) -> None:
    """Make a row."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(Reader, CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        pass

    options = dict(job.row.options)
    method = CalibrationMethod[options.pop("method", "MinMax")]
    extra = {**options.pop("extra_options", {}), **options.pop("more", {})}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(job.exported), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(job.output),
            Images(job),
            calibrate_method=method,
            nodes_to_quantize=list(job.layers) or None,
            extra_options=extra,
            **options,
        )
