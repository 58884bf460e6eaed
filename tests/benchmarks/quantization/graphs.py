"""Tiny networks for the judge, with and without Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5
FEATURES = 6


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def model_of(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    *,
    shape: tuple[int | str, ...] = ("batch", 4, FEATURES),
    output: str = "logits",
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def linear(name: str, source: str, weight: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [source, weight], [name], name=name)


def routed(*, noise: float = 0.0) -> onnx.ModelProto:
    """Four regions, each of which picks two by its affinities; the logits are means over the regions.

    Args:
        noise: added to the weights behind the routing.
    """
    k = np.array([2], np.int64)
    nodes = [
        linear("queries", "input", "w_query"),
        helper.make_node("Transpose", ["input"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", "turned"], ["affinities"], name="routing"),
        helper.make_node("TopK", ["affinities", "k"], ["values", "regions"], name="topk"),
        linear("classes", "input", "w_class"),
        helper.make_node("ReduceSum", ["values", "last"], ["strength"], keepdims=1),
        helper.make_node("Mul", ["classes", "strength"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted", "middle"], ["logits"], keepdims=0),
    ]
    constants = {
        "w_query": weights(FEATURES, FEATURES, seed=1),
        "w_class": weights(FEATURES, CLASSES, seed=2) + np.float32(noise) * weights(FEATURES, CLASSES, seed=3),
        "k": k,
        "last": np.array([-1], np.int64),
        "middle": np.array([1], np.int64),
    }
    return model_of(nodes, constants)


def pair(source: str, name: str, *, point: str = "zero") -> list[onnx.NodeProto]:
    """A tensor rounded to 8 bits and back."""
    inputs = [source, "scale", point] if point else [source, "scale"]
    return [
        helper.make_node("QuantizeLinear", inputs, [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *inputs[1:]], [name]),
    ]


SCALE: dict[str, NDArray[Any]] = {"scale": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
