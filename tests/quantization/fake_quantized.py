"""A small network with all that fake quantization has to tell apart, and what its exported graph computes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.trained_qdq import without_qdq
from edgeformer.quantization.module_map import node_modules
from edgeformer.runtime import OnnxSession

SIZE = 16
Array = npt.NDArray[Any]


class Net(nn.Module):
    """Convolutions with batch norms behind and before, Linears that share an input, one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.before = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16)
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16, bias=False)
        self.twice = nn.Linear(16, 16)
        self.last_norm = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 3, 16, 16]`` to ``[N, 5]``."""
        x = nn.functional.gelu(self.stem_norm(self.stem(images)))
        x = self.down(self.before(x + self.depthwise(x)))
        n, c, h, w = x.shape
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = self.query(x) * self.key(input=x)
        x = self.twice(nn.functional.gelu(self.twice(x)))
        x = self.last_norm(x.transpose(1, 2).reshape(n, c, h, w))
        logits: Tensor = self.head(self.dropout(x.mean(dim=(2, 3))))
        return logits


# The layers that the policy quantizes in it.
LAYERS = ("stem", "down", "query", "key", "twice")


def network(seed: int = 0) -> Net:
    """The network, its batch norms with statistics and factors as training leaves them; in eval mode."""
    torch.manual_seed(seed)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn_like(module.weight)
            module.running_var = torch.rand_like(module.weight) + 0.5
    return net.eval()


def images(count: int = 6, seed: int = 1) -> npt.NDArray[np.float32]:
    """``[count, 3, 16, 16]``, normally distributed."""
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE), dtype=np.float32)


def same_bits(first: Array, second: Array) -> bool:
    """Whether two float32 arrays are equal bit for bit, -0 and 0 told apart."""
    return first.shape == second.shape and first.tobytes() == second.tobytes()


def layers_of(graph: onnx.ModelProto, model: nn.Module) -> list[tuple[onnx.NodeProto, nn.Module]]:
    """The INT8 layers of a graph with Q/DQ pairs, and the modules of the fake-quantized model that they come from."""
    plain, rounding = without_qdq(graph)
    nodes = {node.output[0]: node for node in graph.graph.node}
    found = [(nodes[node.output[0]], module) for node, module in node_modules(GraphIndex(plain), model)]
    chosen = [(node, module) for node, module in found if node.output[0] in rounding.weights]
    assert len(chosen) == len(rounding.weights)
    return chosen


def rounded_input(graph: onnx.ModelProto, node: onnx.NodeProto, values: Array) -> Array:
    """What the Q/DQ pair in front of a layer makes of values, computed by ONNX Runtime."""
    made = {name: one for one in graph.graph.node for name in one.output}
    dequantizer = made[node.input[0]]
    return _run(graph, [made[dequantizer.input[0]], dequantizer], {made[dequantizer.input[0]].input[0]: values})


def restored_weight(graph: onnx.ModelProto, node: onnx.NodeProto) -> Array:
    """The weight that a layer reads, as its module has it, computed by ONNX Runtime."""
    made = {name: one for one in graph.graph.node for name in one.output}
    dequantizer = made[node.input[1]]
    (values,) = [one for one in graph.graph.initializer if one.name == dequantizer.input[0]]
    weight = _run(graph, [dequantizer], {dequantizer.input[0]: numpy_helper.to_array(values)})
    axis = next(item.i for item in dequantizer.attribute if item.name == "axis")
    return weight if axis == 0 else np.ascontiguousarray(weight.T)


def _run(graph: onnx.ModelProto, nodes: list[onnx.NodeProto], feeds: dict[str, Array]) -> Array:
    read = {name for node in nodes for name in node.input}
    part = onnx.ModelProto(ir_version=graph.ir_version, opset_import=graph.opset_import)
    part.graph.name = "pair"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(one for one in graph.graph.initializer if one.name in read and one.name not in feeds)
    for name, values in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        part.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    part.graph.output.append(helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None))
    with OnnxSession(part, optimization="none") as session:
        (result,) = session.run(feeds).values()
    return np.asarray(result)
