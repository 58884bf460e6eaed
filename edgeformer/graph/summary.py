"""What an ONNX model consists of, for `edgeformer inspect`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from onnx import TensorProto

from edgeformer.graph.protos import fed_inputs, tensor_bytes
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op

__all__ = ["GraphSummary", "summarize"]


@dataclass(frozen=True)
class GraphSummary:
    """An ONNX model in figures.

    Attributes:
        producer: tool and version that wrote it.
        opsets: version of each operator set, by domain; the standard one is ``ai.onnx``.
        functions: model-local functions it carries.
        inputs: name, type and shape of each input; symbolic dimensions are text, unknown ones ``?``.
        outputs: the same of the outputs.
        nodes: number of nodes of each op type, most frequent first; other domains than the standard one are prefixed.
        blocks: attributes of each fused routing-attention node, in graph order.
        weights: bytes of initializers by element type.
    """

    producer: str
    opsets: dict[str, int]
    functions: list[str]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    nodes: dict[str, int]
    blocks: list[dict[str, Any]]
    weights: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON holds it."""
        return asdict(self)


def summarize(model: onnx.ModelProto) -> GraphSummary:
    """Summarize a model; nothing is run.

    Raises:
        InputError: an op node has attributes that the op does not take.
    """
    graph = model.graph
    weights: Counter[str] = Counter()
    for tensor in graph.initializer:
        weights[TensorProto.DataType.Name(tensor.data_type)] += tensor_bytes(tensor)
    nodes = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.node)
    return GraphSummary(
        producer=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        functions=[f"{function.domain}::{function.name}" for function in model.functions],
        inputs=[_value(value) for value in fed_inputs(graph)],
        outputs=[_value(value) for value in graph.output],
        nodes=dict(nodes.most_common()),
        blocks=[{"node": node.name, **Attributes.from_node(node).to_dict()} for node in graph.node if is_op(node)],
        weights=dict(weights.most_common()),
    )


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
    return {"name": value.name, "type": TensorProto.DataType.Name(kind.elem_type), "shape": shape}
