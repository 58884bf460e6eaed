"""The new graph: proven blocks out, op nodes in, with ONNX GraphSurgeon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from edgeformer.graph.editing import copy_fields
from edgeformer.graph.fusion.execution import Array, element_types
from edgeformer.graph.fusion.replacement import Plan
from edgeformer.ops.bi_level_routing_attention import with_function

__all__ = ["rewrite"]

# What is made of constants alone and can be stored instead.
_FOLDED = ("CastLike", "Concat", "Flatten", "Gather", "Reshape", "Transpose")


def rewrite(model: onnx.ModelProto, plans: Sequence[Plan], constants: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy of ``model`` with every plan carried out and with the op's function.

    New nodes take over the names of the tensors that they make, so that whatever read those reads the new ones. What
    nobody reads any more is removed. Initializers are shared between layers: none is edited, new ones are made.

    Args:
        model: the graph that the plans are for, at an opset the op's function works in.
        plans: what to replace.
        constants: values of tensors that may be stored instead of computed.
    """
    with _quiet():
        graph = gs.import_onnx(model)
    # GraphSurgeon keeps the model's own list, and its export adds the op's domain to it.
    graph.import_domains = [*graph.import_domains]
    tensors = graph.tensors()
    types = element_types(model)
    for plan in plans:
        replaced = plan.block_nodes(model.graph.node)
        _insert(
            graph,
            tensors,
            [*_with_casts(replaced, plan.made, types, _qkv_type(model, plan, types)), *plan.move_nodes()],
        )
    _fold(graph, tensors, constants)
    graph.cleanup(remove_unused_graph_inputs=False)
    graph.toposort()
    with _quiet():
        exported = gs.export_onnx(graph, do_type_check=False).graph
    result = onnx.ModelProto()
    copy_fields(model, result, left_out="graph")
    result.graph.CopyFrom(exported)
    result.graph.metadata_props.extend(model.graph.metadata_props)
    for made, given in ((result.graph.input, model.graph.input), (result.graph.output, model.graph.output)):
        by_name = {value.name: value for value in given}
        for value in made:
            value.CopyFrom(by_name[value.name])
    _copy_notes(model, plans, result)
    return with_function(result)


def _copy_notes(model: onnx.ModelProto, plans: Sequence[Plan], result: onnx.ModelProto) -> None:
    """Give the new graph's nodes what exporters note at a node, such as its place in the model.

    GraphSurgeon drops it. A new node takes over the notes of the one whose output it makes now; the moved Linear those
    of the old one.
    """
    notes = {name: node for node in model.graph.node for name in node.output}
    for plan in plans:
        moved = {link.kind == "bias": model.graph.node[link.node] for link in plan.route.links if link.kind != "cast"}
        for what, bias in (("qkv_channels_first", False), ("product", False), ("qkv", True)):
            if old := moved.get(bias, moved.get(False)):
                notes[f"{plan.name}/{what}"] = old
    for node in result.graph.node:
        if node.output and (old := notes.get(node.output[0])):
            node.metadata_props.extend(old.metadata_props)
            node.doc_string = old.doc_string


@contextmanager
def _quiet() -> Iterator[None]:
    """GraphSurgeon without warnings: of nodes that share a name, as nodes without one do, and of BFLOAT16."""
    logger = gs.logger.G_LOGGER
    severity, logger.severity = logger.severity, logger.ERROR
    try:
        yield
    finally:
        logger.severity = severity


def _insert(graph: gs.Graph, tensors: dict[str, gs.Tensor], nodes: Iterable[onnx.NodeProto]) -> None:
    """Add nodes; where they make a tensor that exists, its old producer loses it."""

    def tensor(name: str) -> gs.Tensor:
        return tensors.setdefault(name, gs.Variable(name))

    for proto in nodes:
        outputs = [tensor(name) for name in proto.output]
        for output in outputs:
            for producer in list(output.inputs):
                position = next(i for i, made in enumerate(producer.outputs) if made is output)
                producer.outputs[position] = gs.Variable(f"{output.name}/unused")
        if proto.op_type == "Constant":
            (output,) = outputs
            output.to_constant(onnx.numpy_helper.to_array(proto.attribute[0].t).copy())
            continue
        graph.nodes.append(
            gs.Node(
                op=proto.op_type,
                name=proto.name,
                attrs={attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute},
                inputs=[tensor(name) if name else gs.Variable.empty() for name in proto.input],
                outputs=outputs,
                domain=proto.domain or None,
            )
        )


def _with_casts(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], types: Mapping[str, int], made: int | None
) -> list[onnx.NodeProto]:
    """``nodes``, and a Cast for each of ``outputs`` whose readers expect another type than the nodes ``made``."""
    result = []
    for node in nodes:
        output = node.output[0]
        expected = types.get(output)
        if output not in outputs or expected is None or made is None or expected == made:
            result.append(node)
            continue
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.output[0] = f"{node.name}/uncast"
        cast = helper.make_node("Cast", [renamed.output[0]], [output], name=f"{node.name}/cast", to=expected)
        result += [renamed, cast]
    return result


def _qkv_type(model: onnx.ModelProto, plan: Plan, types: Mapping[str, int]) -> int | None:
    """The type of the op's input, which is that of its output."""
    last = model.graph.node[plan.route.links[-1].node].output[0] if plan.route.links else plan.route.tensor
    return types.get(last)


def _fold(graph: gs.Graph, tensors: Mapping[str, gs.Tensor], constants: Mapping[str, Array]) -> None:
    for name, value in constants.items():
        variable = tensors.get(name)
        if isinstance(variable, gs.Variable) and variable.inputs:
            producer = variable.inputs[0]
            position = next(i for i, made in enumerate(producer.outputs) if made is variable)
            producer.outputs[position] = gs.Variable(f"{name}/computed")
            variable.to_constant(value)
    for node in graph.nodes:
        # Weights and biases that the new Linear wants in another orientation or order, or stacked.
        # GraphSurgeon would turn types that NumPy lacks (its dtype is ONNX's number then) into FLOAT: those stay nodes.
        if node.op in _FOLDED and _is_new(node) and all(isinstance(tensor, gs.Constant) for tensor in node.inputs):
            if any(isinstance(tensor.dtype, int) for tensor in node.inputs):
                continue
            value = _value(node, [tensor.values for tensor in node.inputs])
            (output,) = node.outputs
            node.outputs.clear()
            output.to_constant(np.ascontiguousarray(value))


def _value(node: gs.Node, inputs: list[Array]) -> Array:
    first: Array = inputs[0]
    if node.op == "Flatten":
        return np.reshape(first, (first.shape[0], -1))
    if node.op == "Transpose":
        return np.transpose(first)
    if node.op == "Concat":
        return np.concatenate(inputs, axis=int(node.attrs["axis"]))
    if node.op == "Gather":
        return np.take(first, inputs[1], axis=int(node.attrs["axis"]))
    if node.op == "CastLike":
        return np.asarray(first, inputs[1].dtype)
    return np.reshape(first, -1)  # of a Reshape: a bias, to one axis


def _is_new(node: gs.Node) -> bool:
    """Whether `stacking` made the node, as a part of a weight or bias."""
    what = node.name.rsplit("/", 1)[-1]
    return len(node.outputs) == 1 and node.name == node.outputs[0].name and what.startswith(("weight", "bias_"))
