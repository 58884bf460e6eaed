"""Intel Neural Compressor, its quantizer for ONNX."""

from __future__ import annotations

from benchmarks.quantization.tools.job import PRODUCTS, Job, Reader, Row

__all__ = ["IMPORTS", "ROWS", "quantize"]

IMPORTS = ("onnx_neural_compressor.data_reader", "onnx_neural_compressor.quantization")

_SMOOTH = {"SmoothQuant": True, "SmoothQuantAlpha": 0.5, "SmoothQuantFolding": True}
_PRODUCTS = {"op_types_to_quantize": list(PRODUCTS)}

ROWS = {
    "symmetric, per channel": Row(),
    "symmetric, per channel, SmoothQuant": Row(options={"extra": _SMOOTH}),
    "products alone, edgeformer's layers": Row("every", {"config": _PRODUCTS}),
    "products alone, equal placement": Row("default", {"config": _PRODUCTS}),
}


def quantize(job: Job) -> None:
    """Make a row."""
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import QuantFormat, QuantType, config
    from onnx_neural_compressor.quantization import quantize as quantize_onnx

    class Images(Reader, data_reader.CalibrationDataReader):  # type: ignore[misc]  # it has no types
        pass

    left = {"nodes_to_exclude": job.others()} if job.layers else {}
    settings = config.StaticQuantConfig(
        calibration_data_reader=Images(job),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"ActivationSymmetric": True, **job.row.options.get("extra", {})},
        **job.row.options.get("config", {}),
        **left,
    )
    quantize_onnx(str(job.exported), str(job.output), settings)
