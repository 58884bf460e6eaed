"""Small graphs for the tests of types, Q/DQ, batch-norm folding and quantization, built in code, one feature each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgeformer.ops import bi_level_routing_attention as bra


class Builder:
    """Adds nodes and constants to a graph; every method returns the new tensor's name."""

    def __init__(self, shape: Sequence[int | str] = (1, 3, 8, 8), *, opset: int = 20, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(shape))]
        self.opset = opset

    def const(self, array: Any, name: str | None = None) -> str:
        name = name or f"const_{len(self.initializers)}"
        array = np.asarray(array)
        self.initializers.append(
            numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)
        )
        return name

    def normal(self, *shape: int, scale: float = 1.0, name: str | None = None) -> str:
        return self.const(self.rng.normal(size=shape) * scale, name)

    def op(self, op_type: str, *inputs: str, output: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        base = output or f"{op_type.lower()}_{len(self.nodes)}"
        names = [base, *(f"{base}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=f"node_{base}", **attributes))
        return base

    def linear(self, x: str, width: int, out: int, name: str) -> str:
        weight = self.normal(width, out, scale=width**-0.5, name=f"{name}.weight")
        y = self.op("MatMul", x, weight, output=f"{name}_matmul")
        return self.op("Add", y, self.normal(out, scale=0.1, name=f"{name}.bias"), output=name)

    def conv(self, x: str, cin: int, cout: int, kernel: int, name: str, *, group: int = 1, **attributes: Any) -> str:
        fan_in = cin // group * kernel * kernel
        weight = self.normal(cout, cin // group, kernel, kernel, scale=fan_in**-0.5, name=f"{name}.weight")
        bias = self.normal(cout, scale=0.1, name=f"{name}.bias")
        return self.op("Conv", x, weight, bias, output=name, group=group, **attributes)

    def layer_norm(self, x: str, width: int, name: str) -> str:
        gamma = self.const(1 + 0.2 * self.rng.normal(size=width), f"{name}.weight")
        beta = self.normal(width, scale=0.2, name=f"{name}.bias")
        return self.op("LayerNormalization", x, gamma, beta, output=name, axis=-1, epsilon=1e-6)

    def attention_op(self, qkv: str, *, heads: int = 2, regions: int = 2, topk: int = 2, qk_dim: int = 8) -> str:
        output = f"bra_{len(self.nodes)}"
        self.nodes.append(bra.Attributes(heads, regions, topk, qk_dim, qk_dim**-0.5).make_node(qkv, output, output))
        return output

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            self.inputs,
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        if any(bra.is_op(node) for node in self.nodes):
            model = bra.with_function(model)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
            value.CopyFrom(known)
        check(model)
        return model


def transformer(*, dim: int = 8, size: int = 8, opset: int = 20, seed: int = 0) -> onnx.ModelProto:
    """A fused BiFormer in small: stem, one block with every layer kind, downsample, head.

    Input ``[batch, 3, 2 * size, 2 * size]``, output ``logits`` ``[batch, 10]``.
    """
    b = Builder(("batch", 3, 2 * size, 2 * size), opset=opset, seed=seed)
    x = b.conv("input", 3, dim, 3, "stem", pads=[1, 1, 1, 1], strides=[2, 2])
    x = b.op("Add", x, b.conv(x, dim, dim, 3, "pos_embed", group=dim, pads=[1, 1, 1, 1]), output="pos_added")
    x = b.op("Transpose", x, perm=[0, 2, 3, 1], output="tokens")
    qkv = b.linear(b.layer_norm(x, dim, "norm1"), dim, 3 * dim, "qkv")
    attended = b.linear(b.attention_op(qkv, qk_dim=dim), dim, dim, "wo")
    x = b.op("Add", x, attended, output="after_attention")
    hidden = b.op("Gelu", b.linear(b.layer_norm(x, dim, "norm2"), dim, 3 * dim, "fc1"), output="gelu")
    x = b.op("Add", x, b.linear(hidden, 3 * dim, dim, "fc2"), output="after_mlp")
    x = b.op("Transpose", x, perm=[0, 3, 1, 2], output="image")
    x = b.conv(x, dim, 2 * dim, 3, "downsample", pads=[1, 1, 1, 1], strides=[2, 2])
    pooled = b.op("ReduceMean", x, b.const(np.array([2, 3])), keepdims=0, output="pooled")
    weight = b.normal(10, 2 * dim, scale=(2 * dim) ** -0.5, name="head.weight")
    b.op("Gemm", pooled, weight, b.normal(10, scale=0.1, name="head.bias"), transB=1, output="logits")
    return b.model("logits")


def check(model: onnx.ModelProto) -> None:
    """ONNX's own checker; a function may import an older opset than the model."""
    onnx.checker.check_model(model, full_check=True, skip_opset_compatibility_check=True)


def run(
    model: onnx.ModelProto, x: np.ndarray[Any, Any], *extra: str, optimize: bool = False
) -> list[np.ndarray[Any, Any]]:
    """Outputs (or the named tensors instead) in ONNX Runtime, by default without any optimization."""
    if extra:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        have = {value.name for value in copy.graph.output}
        copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in extra if name not in have)
        model = copy
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(list(extra) or None, {session.get_inputs()[0].name: x}))


def types(model: onnx.ModelProto) -> dict[str, str]:
    """The element type of every tensor, by ONNX's own inference: ``{"logits": "FLOAT", ...}``."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    found.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    made = {name for node in model.graph.node for name in node.output if name}
    assert made <= set(found), f"untyped: {made - set(found)}"
    return {name: TensorProto.DataType.Name(kind) for name, kind in found.items()}


def maker(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    """The node that makes a tensor."""
    found: onnx.NodeProto = next(node for node in model.graph.node if tensor in node.output)
    return found


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray[Any, Any]:
    """The value of an initializer."""
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def snr_db(reference: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """10 log10(sum ref^2 / sum (ref - x)^2)."""
    wide = reference.astype(np.float64)
    noise = float(((wide - other) ** 2).sum())
    return float("inf") if noise == 0 else float(10 * np.log10((wide**2).sum() / noise))
