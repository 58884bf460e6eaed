"""The float graph that calibration runs and quantization rewrites."""

from __future__ import annotations

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.fold_batch_norm import fold_batch_norm
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.prepare import prepared
from edgeformer.graph.protos import float_precision

__all__ = ["prepare"]

# What the passes need: ReduceMean with its axes as an input (18), Q/DQ with 16-bit scales (19), as the exporter writes.
_OPSET = 20


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model that is calibrated and quantized: batch norms folded, at an opset that knows 16-bit scales.

    Raises:
        InputError: the model is quantized already, or computes in 16 bits.
    """
    present = [node.op_type for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if present:
        raise InputError("EF324", f"the model is quantized already ({len(present)} Q/DQ nodes): give the float model")
    model = prepared(model)
    own = float_precision(model)
    if own != "fp32":
        raise InputError(
            "EF324",
            f"the model computes in {own.upper()}, whose rounding INT8 would be calibrated on: give the FP32 model (in "
            "PyTorch, the one before .half() or .bfloat16())",
        )
    return fold_batch_norm(raise_opset(model, _OPSET))
