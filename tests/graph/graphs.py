"""Graphs for the fuser's tests, and what the tests ask about them."""

from __future__ import annotations

import collections
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

REFERENCE = Path(__file__).parents[1] / "assets" / "reference_onnx"
Array = npt.NDArray[Any]


def reference_graph(name: str, seed: int = 0) -> onnx.ModelProto:
    """A graph of ``tests/assets/reference_onnx`` with random weights, sized as initialization does."""
    model = onnx.load_model_from_string(gzip.decompress((REFERENCE / f"{name}.onnx.gz").read_bytes()))
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        dims = list(tensor.dims)
        if math.prod(dims) > 256 and not tensor.raw_data:
            fan_in = dims[0] if len(dims) == 2 else math.prod(dims[1:])
            weights = (rng.standard_normal(dims) / math.sqrt(fan_in)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return model


def ops(model: onnx.ModelProto) -> collections.Counter[str]:
    """How many nodes of each op the graph has."""
    return collections.Counter(node.op_type for node in model.graph.node)


def images(
    model: onnx.ModelProto, *, batch: int = 2, size: tuple[int, int] = (224, 224), seed: int = 0
) -> dict[str, Array]:
    """A random input whose regions differ; ``batch`` and ``size`` fill in axes that the graph leaves open.

    Waves of random direction and phase, not the fuser's own generator.
    """
    (value,) = [v for v in model.graph.input if v.name not in {t.name for t in model.graph.initializer}]
    axes = value.type.tensor_type.shape.dim
    shape = [axis.dim_value or free for axis, free in zip(axes, (batch, 3, *size), strict=True)]
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.linspace(0, 1, shape[-2]), np.linspace(0, 1, shape[-1]), indexing="ij")
    image = rng.standard_normal(shape)
    for _ in range(6):
        amplitude, phase = rng.standard_normal((*shape[:2], 1, 1)), rng.uniform(0, 6, (*shape[:2], 1, 1))
        along, across = rng.uniform(2, 25, (2, *shape[:2], 1, 1))
        image += amplitude * np.sin(along * rows + across * columns + phase)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return {value.name: image.astype(dtype)}


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The graph's outputs, in ONNX Runtime as a user would run it, optimizations and all."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, feeds)
    return outputs


def difference(expected: list[Array], got: list[Array]) -> float:
    """Greatest difference of any output, as a fraction of its greatest absolute value."""
    assert [x.shape for x in expected] == [x.shape for x in got]
    assert [x.dtype for x in expected] == [x.dtype for x in got]
    wide = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(expected, got, strict=True)]
    return max(float(np.abs(x - y).max() / np.abs(x).max()) for x, y in wide)


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which nodes have no names and inner tensors are called t0, t1, ..."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    names: dict[str, str] = {}
    tensors = [name for node in copy.graph.node for name in (*node.input, *node.output)]
    for name in [*(tensor.name for tensor in copy.graph.initializer), *tensors]:
        if name and name not in kept:
            names.setdefault(name, f"t{len(names)}")
    for node in copy.graph.node:
        node.name = ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in copy.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    del copy.graph.value_info[:]
    return copy


def constants_as_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every initializer is a Constant node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor, name=f"constant_{i}")
        for i, tensor in enumerate(copy.graph.initializer)
    ]
    nodes = [*made, *copy.graph.node]
    del copy.graph.initializer[:], copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def constants_as_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every Constant node is an initializer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [node for node in copy.graph.node if node.op_type != "Constant"]
    for node in copy.graph.node:
        if node.op_type == "Constant":
            tensor = copy.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def shared_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which all float initializers of one shape and one content's worth of roles are the same tensor.

    Weights of equal shape become one, as an exporter does with equal ones.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    first: dict[tuple[int, ...], str] = {}
    names = {
        tensor.name: first.setdefault(tuple(tensor.dims), tensor.name)
        for tensor in copy.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1
    }
    for node in copy.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    kept = [tensor for tensor in copy.graph.initializer if names.get(tensor.name, tensor.name) == tensor.name]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def evaluated(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    """The first output in ONNX's reference evaluator."""
    outputs: Any = ReferenceEvaluator(model).run(None, feeds)
    return outputs[0]
