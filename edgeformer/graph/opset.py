"""Raising a model's ONNX opset."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

from edgeformer.errors import InputError
from edgeformer.graph.protos import STANDARD_DOMAINS
from edgeformer.ops.bi_level_routing_attention import is_op, with_function

__all__ = ["model_opset", "raise_opset"]


def model_opset(model: onnx.ModelProto) -> int:
    """The version of the standard operator set that the model imports.

    Raises:
        InputError: it imports none.
    """
    for opset in model.opset_import:
        if opset.domain in STANDARD_DOMAINS:
            return int(opset.version)
    raise InputError("EF302", "the model imports no version of the standard ONNX operator set: export it again")


def raise_opset(model: onnx.ModelProto, minimum: int) -> onnx.ModelProto:
    """``model`` at opset ``minimum``, or at its own where that is higher: itself where nothing changes, else a copy.

    Model-local functions are carried over, as ONNX's converter drops them; the op's own takes the model's new opset.

    Raises:
        InputError: ONNX's version converter cannot convert one of the operators.
    """
    version = model_opset(model)
    ir_version = max(model.ir_version, helper.find_min_ir_version_for(list(model.opset_import), True))
    if version >= minimum and ir_version == model.ir_version:
        return model
    result: onnx.ModelProto
    if version >= minimum:
        result = onnx.ModelProto()
        result.CopyFrom(model)
    else:
        try:
            result = version_converter.convert_version(model, minimum)
        except Exception as error:  # the converter raises bare RuntimeError and its own ConvertError
            raise InputError(
                "EF304",
                f"the model is at ONNX opset {version} and cannot be raised to {minimum}: {error}. "
                f"Export it at opset {minimum}.",
            ) from error
        del result.functions[:]
        result.functions.extend(model.functions)
        have = {opset.domain for opset in result.opset_import}
        result.opset_import.extend(opset for opset in model.opset_import if opset.domain not in have)
        if any(is_op(node) for node in result.graph.node):
            result = with_function(result)
    result.ir_version = max(result.ir_version, helper.find_min_ir_version_for(list(result.opset_import), True))
    return result
