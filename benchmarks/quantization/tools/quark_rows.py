"""AMD Quark, its ONNX quantizer."""

from __future__ import annotations

import copy

from benchmarks.quantization.tools.job import PRODUCTS, Job, Reader, Row

__all__ = ["IMPORTS", "ROWS", "quantize"]

IMPORTS = ("onnxruntime.quantization", "quark.onnx")

_TUNED = {
    "config": "S8S8_AAWS",
    "changes": {"op_types_to_quantize": list(PRODUCTS), "per_channel": True, "include_cle": False},
}

ROWS = {
    "INT8_TRANSFORMER_DEFAULT": Row(options={"config": "INT8_TRANSFORMER_DEFAULT"}),
    "XINT8": Row(options={"config": "XINT8"}),
    "S8S8_AAWS": Row(options={"config": "S8S8_AAWS"}),
    "S8S8_AAWS, products alone, edgeformer's layers": Row("every", _TUNED),
    "S8S8_AAWS, products alone, equal placement": Row("default", _TUNED),
}


def quantize(job: Job) -> None:
    """Make a row."""
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx import ModelQuantizer, QConfig

    class Images(Reader, CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        pass

    config = copy.deepcopy(QConfig.get_default_config(job.row.options["config"]))
    for name, value in job.row.options.get("changes", {}).items():
        setattr(config.global_quant_config, name, value)
    if job.layers:
        config.global_quant_config.nodes_to_quantize = list(job.layers)
        config.global_quant_config.nodes_to_exclude = job.others()
    ModelQuantizer(config).quantize_model(str(job.exported), str(job.output), Images(job))
