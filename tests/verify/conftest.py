from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeformer.ops.bi_level_routing_attention import Attributes, with_function
from edgeformer.runtime import TensorInfo
from edgeformer.runtime.session import closed_error
from tests.runtime.conftest import Value, make_model

FLOAT = np.dtype(np.float32)
Function = Callable[[np.ndarray], np.ndarray | Mapping[str, np.ndarray]]


@dataclass
class Labelled:
    images: np.ndarray
    labels: np.ndarray | None


class FunctionSession:
    """A session made of a function of the input; counts its runs."""

    def __init__(
        self,
        function: Function,
        batch: int | str = "batch",
        width: int = 3,
        outputs: Sequence[str] = ("logits",),
        rank: int = 2,
    ) -> None:
        self.function = function
        self.inputs = {"input": TensorInfo(FLOAT, (batch, width))}
        self.outputs = {name: TensorInfo(FLOAT, (batch, *["?"] * (rank - 1))) for name in outputs}
        self.sizes: list[int] = []
        self.closed = False

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.closed:
            raise closed_error("the function")
        self.sizes.append(len(feeds["input"]))
        result = self.function(feeds["input"])
        return dict(result) if isinstance(result, Mapping) else {"logits": result}

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FunctionSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def linear_model(weight: np.ndarray, batch: int | str = "batch") -> ModelProto:
    """logits = input @ weight."""
    rows, columns = weight.shape
    return make_model(
        [helper.make_node("MatMul", ["input", "weight"], ["logits"], "head")],
        [("input", TensorProto.FLOAT, [batch, rows])],
        [("logits", TensorProto.FLOAT, [batch, columns])],
        {"weight": weight.astype(np.float32)},
    )


def images(count: int, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


ATTRIBUTES = (
    Attributes(num_heads=1, regions=2, topk=1, qk_dim=4, scale=0.5),
    Attributes(num_heads=1, regions=2, topk=3, qk_dim=4, scale=0.5),
)


def routing_model(gains: Sequence[float] = (1.0, 1.0), shift: float = 0.0, named: bool = True) -> ModelProto:
    """Two op nodes one after the other, on an input [batch, 4, 6, 12].

    Args:
        gains: per block, a factor on its qkv.
        shift: added to the first three channels of the first block's queries.
        named: name the weights as PyTorch names them.
    """
    nodes: list[NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    value = "input"
    for index, (attributes, gain) in enumerate(zip(ATTRIBUTES, gains, strict=True)):
        weight = np.eye(12 if index == 0 else 4, 12, dtype=np.float32)
        if index:
            weight = np.tile(np.eye(4, dtype=np.float32), (1, 3)) * np.float32(1.0)
        name = f"stages.{2 * index}.5.attn.qkv.weight" if named else f"weight{index}"
        bias = np.zeros(12, np.float32)
        if index == 0:
            bias[:3] = shift
        weights |= {name: (weight * gain).astype(np.float32), f"bias{index}": bias}
        nodes += [
            helper.make_node("MatMul", [value, name], [f"m{index}"]),
            helper.make_node("Add", [f"m{index}", f"bias{index}"], [f"qkv{index}"]),
            attributes.make_node(f"qkv{index}", f"a{index}", f"block{index}"),
        ]
        value = f"a{index}"
    nodes.append(helper.make_node("ReduceMean", [value, "axes"], ["logits"], keepdims=0))
    weights["axes"] = np.array([1, 2])
    graph = helper.make_graph(
        nodes,
        "routed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 6, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor(
                n, TensorProto.INT64 if n == "axes" else TensorProto.FLOAT, w.shape, w.tobytes(), raw=True
            )
            for n, w in weights.items()
        ],
    )
    return with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def gather_attention(how: str) -> ModelProto:
    """x [n, 4, 3] attends to the two of its rows that answer best; ``how`` says in which way, or what is missing."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "xt"], ["scores"]),
        helper.make_node("TopK", ["scores", "two"], ["best", "picked"]),
        helper.make_node("Unsqueeze", ["picked", "last"], ["where"]),
    ]
    fetched = helper.make_node("GatherND", ["x", "where"], ["keys"], batch_dims=1)
    product = [
        helper.make_node("Transpose", ["keys"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("Unsqueeze", ["x", "two"], ["q"]),
        helper.make_node("MatMul", ["q", "kt"], ["logits"]),
    ]
    softmax = helper.make_node("Softmax", ["logits"], ["y"])
    reduced = [
        helper.make_node("Unsqueeze", ["x", "two"], ["q"]),
        helper.make_node("Mul", ["q", "keys"], ["products"]),
        helper.make_node("ReduceSum", ["products", "last"], ["logits"], keepdims=0),
    ]
    weights = [helper.make_node("MatMul", ["keys", "weight"], ["logits"])]
    attention = [
        helper.make_node("Unsqueeze", ["x", "two"], ["q"]),
        helper.make_node("Attention", ["q", "keys", "keys"], ["y"]),
    ]
    elsewhere = helper.make_node("GatherND", ["x", "other"], ["keys"], batch_dims=1)
    values = [
        helper.make_node("Softmax", ["best"], ["p"]),
        helper.make_node("Unsqueeze", ["p", "two"], ["weights"]),
        helper.make_node("MatMul", ["weights", "keys"], ["y"]),
    ]
    nodes += {
        "one": [fetched, *product, softmax],
        "reduced": [fetched, *reduced, softmax],
        "attention": [fetched, *attention],
        "no_softmax": [fetched, *product, helper.make_node("Relu", ["logits"], ["y"])],
        "weights": [fetched, *weights, softmax],
        "gathered_by_others": [elsewhere, *product, softmax],
        "values_only": [fetched, *values],
    }[how]
    inputs: list[Value] = [("x", TensorProto.FLOAT, ["n", 4, 3])]
    if how == "gathered_by_others":
        inputs.append(("other", TensorProto.INT64, ["n", 4, 2, 1]))
    constants = {"two": np.array([2]), "last": np.array([-1]), "weight": np.eye(3, dtype=np.float32)}
    shape: list[int | str] = ["n", 4, "rows"] if how == "reduced" else ["n", "?", "??", "???"]
    opset = 23 if how == "attention" else 20
    return make_model(nodes, inputs, [("y", TensorProto.FLOAT, shape)], constants, opset)
