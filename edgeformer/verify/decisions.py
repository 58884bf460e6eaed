"""Where a graph decides which regions attend to which, and the graph made to show it.

A routing decision is the TopK in a BiLevelRoutingAttention node, or one like it in a graph that was not fused: its
indices gather keys, and attention's Softmax is taken over the product of these with the queries. Any other TopK (the
best classes, the best boxes) decides something else: its indices are results, to be compared as such.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass
from itertools import pairwise

from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_empty_tensor_value_info

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.protos import is_standard
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.runtime.inlining import inline_functions

__all__ = ["RoutingOutput", "expose_routing", "show_routing"]

# A block's weights, as PyTorch names them; the Swin-like layout has `.blocks` in between.
_BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.")

_GATHERS = ("Gather", "GatherElements", "GatherND")
_MOVES = (
    *_GATHERS,
    *("Concat", "Dropout", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
    *("Transpose", "Unsqueeze"),
)
_ELEMENTWISE = (
    *("Abs", "Add", "Cast", "CastLike", "Clip", "DequantizeLinear", "Div", "Equal", "Exp", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "QuantizeLinear"),
    *("Reciprocal", "Sigmoid", "Sqrt", "Sub", "Tanh", "Where"),
)
_KEPT = (*_MOVES, *_ELEMENTWISE)
# What makes one-hot rows of indices; their product with the keys is a gather, too.
_ONE_HOT = ("OneHot", "ScatterElements", "ScatterND")


@dataclass(frozen=True)
class RoutingOutput:
    """A routing decision that a graph shows.

    Attributes:
        name: the output's name: int64 indices, [samples, regions, topk].
        stage: number of the model's stage, from 0, or None where the graph's weights have no such names.
        block: number of the block in its stage, or of the decision in the graph where ``stage`` is None.
    """

    name: str
    stage: int | None
    block: int


def expose_routing(model: ModelProto) -> tuple[ModelProto, tuple[RoutingOutput, ...]]:
    """A copy of the model that also gives the regions that each block picks.

    Functions are inlined first, so that fused and unfused graphs alike show the TopK in which a block decides; the
    decisions come in the order of the graph.

    Returns:
        The copy, and the outputs that show its routing: added ones, or the graph's own where it gave them already.
    """
    result = ModelProto()
    result.CopyFrom(model)
    return result, show_routing(result)


def show_routing(model: ModelProto) -> tuple[RoutingOutput, ...]:
    """`expose_routing` in place: the weights, nearly all of a model, are neither copied nor serialized."""
    _inline(model)
    graph = model.graph
    deciding = _decisions(model)
    shown = {value.name for value in graph.output}
    for node in deciding:
        if node.output[1] not in shown:
            value = graph.output.add()
            value.CopyFrom(make_empty_tensor_value_info(node.output[1]))
            value.type.tensor_type.elem_type = TensorProto.INT64
    places = _places(model, [node.input[0] for node in deciding])
    return tuple(RoutingOutput(node.output[1], *place) for node, place in zip(deciding, places, strict=True))


def _inline(model: ModelProto) -> None:
    """Put the bodies of the model's functions in place of the nodes that call them."""
    if not model.functions and not any(is_op(node) for node in model.graph.node):
        return
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    # The names of the weights are taken; what they hold is nothing to the inliner.
    for tensor in model.graph.initializer:
        bare.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    inlined = inline_functions(bare)
    model.ir_version = inlined.ir_version
    for whole, part in ((model, "opset_import"), (model, "functions")):
        whole.ClearField(part)
        getattr(whole, part).extend(getattr(inlined, part))
    for part in ("node", "value_info"):
        model.graph.ClearField(part)
        getattr(model.graph, part).extend(getattr(inlined.graph, part))


def _decisions(model: ModelProto) -> list[NodeProto]:
    """The TopK nodes that route, in the order of the graph, whose functions are inlined."""
    flow = Dataflow(model)
    return [
        node
        for index, node in enumerate(flow.nodes)
        if is_standard(node, "TopK") and len(node.output) == 2 and node.output[1] and _routes(flow, index)
    ]


def _routes(flow: Dataflow, topk: int) -> bool:
    """Whether a Softmax is taken over the product of what the TopK's indices fetch with other data.

    The fuser's anchors let everything stand between TopK and Softmax, since the proof decides afterwards. Here nothing
    does: a gather of queries or boxes that goes through weights (a MatMul with a constant, a convolution) ends there.
    """
    indices, fetched, logits = {flow.nodes[topk].output[1]}, set[str](), set[str]()
    for index in range(topk + 1, len(flow.nodes)):
        node = flow.nodes[index]
        inputs = flow.data_inputs(index)
        if not logits.isdisjoint(inputs):
            if is_standard(node, "Softmax"):
                return True
            if is_standard(node, *_KEPT):
                logits.update(node.output)
        elif not fetched.isdisjoint(inputs):
            if is_standard(node, "Attention"):
                return True
            if is_standard(node, *_KEPT):
                fetched.update(node.output)
            # A product written as Mul and ReduceSum counts as well.
            elif (is_standard(node, "MatMul", "Einsum") and len(inputs) > 1) or is_standard(node, "ReduceSum"):
                logits.update(node.output)
        elif not indices.isdisjoint(inputs):
            if is_standard(node, *_GATHERS) and node.input[1] in indices:
                fetched.update(node.output)
            elif is_standard(node, *_KEPT, *_ONE_HOT):
                indices.update(node.output)
            elif (is_standard(node, "MatMul", "Einsum") and len(inputs) > 1) or is_standard(node, "ReduceSum"):
                fetched.update(node.output)
    return False


def _places(model: ModelProto, starts: list[str]) -> list[tuple[int | None, int]]:
    """Stage and block of each routing decision, given the value that feeds it: those of the nearest weight upstream.

    Exporters let equal weights (those of a model fresh from its initialization are) share one name, so only a weight
    with one consumer is believed, and if the places found are not in ascending order none is.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output if name}
    uses = Counter(name for node in graph.node for name in node.input)
    weights = {tensor.name for tensor in graph.initializer if uses[tensor.name] == 1}
    found: list[tuple[int, int]] = []
    for start in starts:
        queue, seen = deque([start]), {start}
        while queue:
            name = queue.popleft()
            match = _BLOCK.search(name) if name in weights else None
            if match:
                found.append((int(match[1]), int(match[2])))
                break
            for source in producers[name].input if name in producers else ():
                if source and source not in seen:
                    seen.add(source)
                    queue.append(source)
    if len(found) == len(starts) and all(first < second for first, second in pairwise(found)):
        return list(found)
    return [(None, index) for index in range(len(starts))]
