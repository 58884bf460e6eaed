"""Which layers of a graph become INT8, and why: the default policy, read off the graph's structure, plus overrides.

Quantized are Linears (MatMul or Gemm with a constant weight) and dense convolutions: where a vision transformer
spends its arithmetic. Left in float are depthwise convolutions (bound by memory), the classifier (its error goes
straight into the result), what decides routing (near-ties flip regions), and everything without a weight: residual
adds, norms, softmax, GELU, attention. The attention op alone can take INT8 all the same, where a recipe asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.float_rules import routing_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute, is_standard, label
from edgeformer.graph.qdq import LayerSite, attention_site, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization.recipe import Override
from edgeformer.records.quantization import LayerRecord

__all__ = ["Decision", "decide"]

_LAYERS = ("Conv", "Gemm", "MatMul")
# Between a classifier and the output of the network, or between pooling and a classifier, nothing else stands.
_BEHIND_HEAD = frozenset(
    {
        "Add",
        "Cast",
        "Flatten",
        "Identity",
        "LogSoftmax",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Softmax",
        "Squeeze",
        "Transpose",
    }
)
_BEFORE_HEAD = frozenset(
    {"Add", "BatchNormalization", "Dropout", "Flatten", "Identity", "LayerNormalization", "Mul", "Reshape", "Squeeze"}
)
_GLOBAL_POOLS = frozenset({"GlobalAveragePool", "ReduceMean"})


@dataclass(frozen=True)
class Decision:
    """What becomes of one layer.

    Attributes:
        node: the node's name, or its output where it has none.
        op_type: its operator.
        output: its output tensor, which identifies it.
        quantized: whether it becomes INT8.
        because: the reason.
        site: where its Q/DQ pairs go; None where it has none: it cannot be quantized, or is the attention op.
    """

    node: str
    op_type: str
    output: str
    quantized: bool
    because: str
    site: LayerSite | None = None

    @property
    def record(self) -> LayerRecord:
        """What a report says of it."""
        return LayerRecord(node=self.node, op=self.op_type, int8=self.quantized, because=self.because)


def decide(
    model: onnx.ModelProto,
    overrides: Sequence[Override] = (),
    *,
    quantize_attention: bool = False,
    index: GraphIndex | None = None,
) -> tuple[Decision, ...]:
    """A decision for every layer of ``model`` (Conv, Gemm, MatMul and the attention op), in graph order.

    Args:
        model: a float graph.
        overrides: exceptions for layers with weights.
        quantize_attention: take every node of the attention op in; otherwise none.
        index: of ``model``, where there is one.

    Raises:
        InputError: an override matches no layer, or asks for a layer that cannot be quantized; attention is to be
            quantized and there is none, or one that cannot be.
    """
    index = index or GraphIndex(model)
    routing = routing_nodes(index)
    decisions = []
    unused = set(range(len(overrides)))
    faults = []
    for node in model.graph.node:
        if bra.is_op(node):
            place = attention_site(index, node) if quantize_attention else "attention and its routing take 16-bit input"
            if isinstance(place, str):
                decisions.append(_decision(node, False, place))
            else:
                decisions.append(_decision(node, True, "recipe: attention takes INT8 queries, keys and values"))
            continue
        if not is_standard(node, *_LAYERS):
            continue
        site = layer_site(index, node)
        decision = _default(index, node, site, routing)
        for position, override in enumerate(overrides):
            if not _matches(override, node):
                continue
            unused.discard(position)
            if override.quantize and isinstance(site, str):
                if override.name != "*":
                    faults.append(f"override {override.name!r} asks for {decision.node!r}, but {site}")
                continue
            found = None if isinstance(site, str) else site
            decision = _decision(node, override.quantize, f"recipe: {override.because}", found)
        decisions.append(decision)
    faults += [
        f"override {overrides[i].name!r} ({overrides[i].op_type}) matches no layer"
        + (": attention is quantized by quantize_attention" if overrides[i].op_type == bra.OP_TYPE else "")
        for i in sorted(unused)
    ]
    if quantize_attention:
        faults += _attention_faults([item for item in decisions if item.op_type == bra.OP_TYPE])
    if faults:
        raise InputError("EF504", "the recipe does not fit the model: " + "; ".join(faults))
    return tuple(decisions)


def _attention_faults(attention: Sequence[Decision]) -> list[str]:
    """Why the attention cannot be INT8: one function body serves all op nodes, so all of them are or none is."""
    if not attention:
        return [
            f"quantize_attention asks for INT8 attention, and the graph has no {bra.DOMAIN}::{bra.OP_TYPE} node: "
            "fuse it first (edgeformer fuse), or leave quantize_attention out"
        ]
    return [
        f"{item.node!r} is to take INT8, but {item.because}: leave quantize_attention out"
        for item in attention
        if not item.quantized
    ]


def _decision(node: onnx.NodeProto, quantized: bool, because: str, site: LayerSite | None = None) -> Decision:
    return Decision(label(node), node.op_type, node.output[0], quantized, because, site)


def _default(index: GraphIndex, node: onnx.NodeProto, site: LayerSite | str, routing: set[str]) -> Decision:
    if isinstance(site, str):
        return _decision(node, False, site)
    if node.output[0] in routing:
        return _decision(node, False, "it decides routing: near-ties between regions would flip", site)
    if node.op_type == "Conv" and attribute(node, "group", 1) != 1:
        return _decision(node, False, "a grouped convolution is bound by memory, not by arithmetic", site)
    if _is_head(index, node):
        return _decision(node, False, "a classifier's error goes straight into the result", site)
    if node.op_type == "Conv":
        return _decision(node, True, "a dense convolution", site)
    return _decision(node, True, "a Linear: a matrix product with a constant weight", site)


def _is_head(index: GraphIndex, node: onnx.NodeProto) -> bool:
    return _leads_to_output(index, node) or _follows_global_pool(index, node)


def _leads_to_output(index: GraphIndex, node: onnx.NodeProto) -> bool:
    while node.output[0] not in index.outputs:
        readers = index.consumers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type not in _BEHIND_HEAD or len(index.data_inputs(readers[0])) != 1:
            return False
        node = readers[0]
    return True


def _follows_global_pool(index: GraphIndex, node: onnx.NodeProto) -> bool:
    source = index.producer.get(node.input[0])
    while source is not None and source.op_type in _BEFORE_HEAD and len(index.data_inputs(source)) == 1:
        source = index.producer.get(index.data_inputs(source)[0])
    return source is not None and source.op_type in _GLOBAL_POOLS


def _matches(override: Override, node: onnx.NodeProto) -> bool:
    names = (node.name, node.output[0], node.input[1])
    return fnmatchcase(node.op_type, override.op_type) and any(fnmatchcase(name, override.name) for name in names)
