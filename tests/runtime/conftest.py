from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.export.conftest import tiny as tiny

Value = tuple[str, int, Sequence[int | str]]
"""An input or output: name, element type, shape."""


def make_model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 20,
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def scale_model(factor: float = 2.0, batch: int | str = "batch", width: int = 3) -> ModelProto:
    """y = factor * x."""
    return make_model(
        [helper.make_node("Mul", ["x", "factor"], ["y"], "mul")],
        [("x", TensorProto.FLOAT, [batch, width])],
        [("y", TensorProto.FLOAT, [batch, width])],
        {"factor": np.array(factor, np.float32)},
    )
