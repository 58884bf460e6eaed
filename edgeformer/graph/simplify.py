"""Computing once what depends on constants alone, and taking out what does nothing.

Exporters that do not optimize, and the definitions that ONNX gives for its operators, leave long chains of shape
arithmetic between the nodes that compute. They are the same graph with and without it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.editing import with_nodes
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import STANDARD_DOMAINS, attribute, is_standard, subgraphs
from edgeformer.runtime import Array, OnnxSession

__all__ = ["simplified"]

# Elements of a result up to which it is stored: shapes, indices, masks, and no second copy of large weights.
_LARGEST_RESULT = 65536
_ROUNDS = 8
# Their results are not those of another run, or are what they are for a reason.
_LEFT_OPS = frozenset(
    {"Bernoulli", "DequantizeLinear", "Multinomial", "QuantizeLinear", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike", "Optional", "OptionalGetElement", "OptionalHasElement"}
)


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` that computes the same, with constants folded and without nodes that do nothing.

    Folded is what comes of constants and of shapes that are fixed in the graph, up to 65,536 elements. Sequences are
    left alone.
    """
    for _ in range(_ROUNDS):
        index = GraphIndex(model)
        constants = _folded(index)
        nodes = [node for node in model.graph.node if not any(name in constants for name in node.output)]
        aliases = _aliases(index, constants)
        if not constants and not aliases:
            break
        model = _without(model, nodes, constants, aliases)
    return model


def _folded(index: GraphIndex) -> dict[str, Array]:
    """Values of the tensors that nodes of constants alone make and others read."""
    known: dict[str, Array] = {}
    static: dict[str, onnx.NodeProto] = {}
    for node in index.model.graph.node:
        if is_standard(node, "Shape", "Size"):
            value = _size(index, node)
            if value is not None:
                known[node.output[0]] = value
        elif _is_static(index, node, static, known):
            static.update(dict.fromkeys(node.output, node))
    made = static.keys() | known.keys()
    read = set(index.outputs)
    for node in index.model.graph.node:
        if node.output[0] not in static:
            read.update(node.input)
    wanted = [name for name in static if name in read]
    found = {name: value for name, value in known.items() if name in read}
    if wanted:
        found |= _computed(index, static, known, wanted)
    # A node goes when all that is read of it is stored.
    return {name: value for name, value in found.items() if name in made}


def _is_static(
    index: GraphIndex, node: onnx.NodeProto, static: dict[str, onnx.NodeProto], known: dict[str, Array]
) -> bool:
    if node.domain not in STANDARD_DOMAINS or node.op_type in _LEFT_OPS or node.op_type == "Constant":
        return False
    if list(subgraphs(node)) or "Sequence" in node.op_type:
        return False
    if not all(not name or name in index.constants or name in static or name in known for name in node.input):
        return False
    shapes = [index.shape(name) for name in node.output if name]
    return all(
        shape is not None and None not in shape and math.prod(size or 0 for size in shape) <= _LARGEST_RESULT
        for shape in shapes
    )


def _size(index: GraphIndex, node: onnx.NodeProto) -> Array | None:
    shape = index.shape(node.input[0])
    if shape is None:
        return None
    if node.op_type == "Shape":
        shape = shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
    if None in shape:
        return None
    sizes = [size or 0 for size in shape]
    return np.asarray(sizes if node.op_type == "Shape" else math.prod(sizes), np.int64)


def _computed(
    index: GraphIndex, static: dict[str, onnx.NodeProto], known: dict[str, Array], wanted: list[str]
) -> dict[str, Array]:
    """The values of the wanted tensors, in one run of the nodes that make them."""
    model = index.model
    needed = set(wanted)
    nodes = []
    for node in reversed(model.graph.node):
        if node.output[0] in static and any(name in needed for name in node.output):
            needed.update(node.input)
            nodes.append(node)
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = "constants"
    part.graph.node.extend(
        node for node in model.graph.node if is_standard(node, "Constant") and node.output[0] in needed
    )
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    part.graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in known.keys() & needed)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    try:
        with OnnxSession(part, optimization="none") as session:
            return session.run({})
    except InputError:
        # What cannot be computed alone (bfloat16, an operator without a kernel) stays in the graph.
        return {}


def _aliases(index: GraphIndex, constants: dict[str, Array]) -> dict[str, str]:
    """Outputs of nodes that give what they are given -> what that is."""
    found: dict[str, str] = {}
    for node in index.model.graph.node:
        if not node.output or node.output[0] in constants or node.output[0] in index.outputs:
            continue
        source = _same(index, node, constants)
        if source is not None:
            found[node.output[0]] = found.get(source, source)
    return found


def _same(index: GraphIndex, node: onnx.NodeProto, constants: dict[str, Array]) -> str | None:
    """The input that the node's output equals in all it holds."""
    if is_standard(node, "Identity"):
        return str(node.input[0])
    if is_standard(node, "Cast", "CastLike"):
        given = index.element_type(node.input[0])
        return str(node.input[0]) if given == index.element_type(node.output[0]) else None
    values = [constants.get(name, index.array(name)) if name else None for name in node.input]
    picked: str | None = None
    if is_standard(node, "Where") and values[0] is not None and values[0].size:
        picked = node.input[1] if values[0].all() else node.input[2] if not values[0].any() else None
    elif is_standard(node, "Add", "Sub") and _all(values[1], 0):
        picked = node.input[0]
    elif is_standard(node, "Add") and _all(values[0], 0):
        picked = node.input[1]
    elif (is_standard(node, "Mul", "Div") and _all(values[1], 1)) or (
        is_standard(node, "Expand", "Reshape", "Transpose") and _moves_nothing(index, node)
    ):
        picked = node.input[0]
    if picked is None:
        return None
    shape = index.shape(picked)
    fixed = shape is not None and None not in shape
    if fixed and shape == index.shape(node.output[0]):
        return picked
    elementwise = is_standard(node, "Where", "Add", "Sub", "Mul", "Div")
    return picked if elementwise and all(_adds_no_axis(index, name, picked) for name in node.input) else None


def _adds_no_axis(index: GraphIndex, name: str, picked: str) -> bool:
    """Whether an operand of an elementwise node leaves the shape of another, free axes and all, as it is."""
    small, large = index.shape(name), index.shape(picked)
    if name == picked:
        return True
    if small is None or large is None or len(small) > len(large):
        return False
    ends = zip(reversed(small), reversed(large), strict=False)
    return all(size == 1 or (size is not None and size == whole) for size, whole in ends)


def _all(value: Array | None, number: int) -> bool:
    return value is not None and value.size > 0 and bool((value == number).all())


def _moves_nothing(index: GraphIndex, node: onnx.NodeProto) -> bool:
    perm = attribute(node, "perm")
    return node.op_type != "Transpose" or (perm is not None and list(perm) == sorted(perm))


def _without(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, Array], aliases: dict[str, str]
) -> onnx.ModelProto:
    kept = []
    for node in nodes:
        if node.output and node.output[0] in aliases:
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [aliases.get(name, name) for name in node.input]
        kept.append(copy)
    return with_nodes(model, kept, [_tensor(value, name) for name, value in constants.items()])


def _tensor(value: Array, name: str) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)
