"""What no build can take, found in the graph before any work is done, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.protos import attribute, describe, is_standard, scalar, subgraphs
from edgeformer.graph.stored_tensors import graph_tensors
from edgeformer.runtime import Array

__all__ = ["check_can_be_taken", "check_range"]

# Domains of operators that ONNX Runtime writes into a file that it optimizes.
_RUNTIME_DOMAINS = ("com.microsoft", "com.ms.")
_RANDOM_OPS = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# Operators that multiply with what they read. Infinity is legitimate elsewhere: masks are minus infinity, bounds both.
_WEIGHTED_OPS = frozenset(
    {"BatchNormalization", "BiLevelRoutingAttention", "Conv", "ConvTranspose", "Einsum", "Gemm", "GroupNormalization"}
    | {"InstanceNormalization", "LayerNormalization", "MatMul", "Mul", "PRelu", "RMSNormalization"}
)
# Of these those that compute in 16 bits in a 16-bit graph whatever is around them.
_NARROWED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "LayerNormalization"})
# What may stand between a stored weight and its reader.
_VIEWS = ("Cast", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def check_can_be_taken(model: onnx.ModelProto) -> None:
    """Check that the graph is an inference graph with whole weights, in operators that others than its writer know.

    Raises:
        InputError: nodes of ONNX Runtime's own operators, nodes in training mode or that draw random numbers, or
            weights that are NaN or infinite. The message names them.
    """
    nodes = list(_nodes(model.graph))
    foreign = [node for node in nodes if node.domain.startswith(_RUNTIME_DOMAINS)]
    if foreign:
        kinds = sorted({f"{node.domain}::{node.op_type}" for node in foreign})
        raise InputError(
            "EF341",
            f"ONNX Runtime optimized this file: {len(foreign)} of its nodes are of ONNX Runtime's own operators "
            f"({', '.join(kinds[:5])}{', ...' if len(kinds) > 5 else ''}). Give the one before, and of a quantized "
            "model the float model",
        )
    _check_inference(model.graph, nodes)
    _check_finite(model.graph)


def check_range(model: onnx.ModelProto, largest: float) -> None:
    """Check that no weight is beyond the range of a 16-bit type, before the work that ends with finding that.

    Args:
        model: the float model.
        largest: magnitude that the type holds.

    Raises:
        InputError: names the weights and their magnitudes.
    """
    weighted = _weighted(model.graph, _NARROWED_OPS)
    found = []
    for name, tensor in _weights(model.graph):
        if tensor.data_type in _FLOATS and name in weighted and tensor.dims:
            array = numpy_helper.to_array(tensor)
            magnitude = float(max(array.max(initial=0), -array.min(initial=0)))
            if magnitude > largest:
                found.append(f"{name!r} reaches {magnitude:g}")
    if found:
        raise InputError(
            "EF307",
            f"{len(found)} weights are out of the range of FP16 (largest magnitude {largest:g}): "
            f"{', '.join(found[:5])}{', ...' if len(found) > 5 else ''}. Use bfloat16 or FP32 (--precision bf16 or "
            "fp32), or retrain or rescale these weights",
        )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)


def _check_inference(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    training = [node for node in nodes if _trains(graph, node)]
    if training:
        raise InputError(
            "EF342",
            f"the model was exported in training mode: {describe(training[0])} and {len(training) - 1} further nodes "
            "compute as they do while it learns. Call model.eval() and export it again",
        )
    drawing = [node for node in nodes if is_standard(node, *_RANDOM_OPS)]
    if drawing:
        raise InputError(
            "EF342",
            f"{describe(drawing[0])} draws random numbers, so that no two runs agree, as stochastic depth does in "
            "training mode. Call model.eval() and export it again",
        )


def _trains(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    if is_standard(node, "BatchNormalization"):
        # Before opset 14 it says so by giving the statistics of the batch as well.
        return bool(attribute(node, "training_mode", 0)) or sum(map(bool, node.output)) > 1
    if not is_standard(node, "Dropout") or len(node.input) < 3 or not node.input[2]:
        return False
    return bool(scalar(_constant(graph, node.input[2])))


def _constant(graph: onnx.GraphProto, name: str) -> Array | None:
    for tensor in graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    for node in graph.node:
        if name in node.output:
            if is_standard(node, "Constant"):
                value = attribute(node, "value")
                return None if value is None else np.asarray(numpy_helper.to_array(value))
            return _constant(graph, node.input[0]) if is_standard(node, "Identity", "Cast") else None
    return None


def _check_finite(graph: onnx.GraphProto) -> None:
    weighted: set[str] | None = None
    broken = []
    for name, tensor in _weights(graph):
        if tensor.data_type not in _FLOATS:
            continue
        array = numpy_helper.to_array(tensor)
        # The sum is finite where all values are, but for an overflow, and takes no mask of the array's size.
        with np.errstate(all="ignore"):
            if np.isfinite(array.sum(dtype=np.float64)):
                continue
        wide = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        not_numbers, infinite = int(np.isnan(wide).sum()), int(np.isinf(wide).sum())
        if infinite and weighted is None:
            weighted = _weighted(graph)
        if not_numbers or (infinite and weighted is not None and name in weighted):
            what = f"{not_numbers} NaN" if not_numbers else f"{infinite} infinite"
            broken.append(f"{name!r} of shape {list(tensor.dims)} holds {what} of {wide.size} values")
    if broken:
        raise InputError(
            "EF343",
            f"weights of the model are not finite: {'; '.join(broken[:5])}{'; ...' if len(broken) > 5 else ''}. The "
            "training that made them diverged: take an earlier checkpoint and export it again",
        )


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """The tensors that a graph stores, each by the name under which nodes read it."""
    for node in graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.TENSOR:
                yield node.output[0], item.t
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        for inner in subgraphs(node):
            yield from ((tensor.name, tensor) for tensor in graph_tensors(inner))


def _weighted(graph: onnx.GraphProto, op_types: frozenset[str] = _WEIGHTED_OPS) -> set[str]:
    """Tensors that operators multiply with, directly or through a view."""
    found: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in op_types or (is_standard(node, *_VIEWS) and node.output[0] in found):
            found.update(node.input)
    return found
