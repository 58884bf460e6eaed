"""What tools leave behind in a graph that says the same without it: names given twice, types that no longer hold."""

from __future__ import annotations

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.editing import UniqueNames, draft, unique_names
from edgeformer.graph.protos import subgraphs
from edgeformer.graph.shape_inference import declaration, infer_values

__all__ = ["with_true_types", "with_unique_node_names"]


def with_unique_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with a name of its own for each node that has one; itself where that is so.

    ONNX lets nodes share a name; ONNX Runtime and reports do not.
    """
    names = [node.name for node in _nodes(model.graph) if node.name]
    if len(set(names)) == len(names):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    free: UniqueNames = unique_names(result)
    seen: set[str] = set(names)
    first: set[str] = set()
    for node in _nodes(result.graph):
        if not node.name:
            continue
        if node.name in first:
            wanted = free(node.name)
            while wanted in seen:
                wanted = free(node.name)
            node.name = wanted
        first.add(node.name)
    return result


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = list(graph.node)
    for node in graph.node:
        for inner in subgraphs(node):
            found += _nodes(inner)
    return found


def with_true_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with types of inner tensors and outputs that follow from its nodes; itself where they do already.

    Graph surgery, a changed batch size and converters of types leave notes that are no longer true, and outputs
    without a shape. ONNX Runtime refuses or believes them, and so do passes. What cannot be inferred is believed.

    Raises:
        InputError: the types of the graph's nodes contradict each other, or an output's cannot be told.
    """
    bare = draft(model)
    bare.graph.initializer.extend(model.graph.initializer)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.ClearField("type")
    try:
        inferred = infer_values(bare, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise InputError("EF302", f"the types in the graph contradict each other: {error}") from error
    # Exporters note the types of weights, too, and converters forget these notes.
    inferred |= {weight.name: declaration(weight, weight.name) for weight in model.graph.initializer}
    stale = any(_contradicts(value, inferred.get(value.name)) for value in model.graph.value_info)
    outputs = {value.name: _true_output(value, inferred.get(value.name)) for value in model.graph.output}
    if not stale and all(outputs[value.name] == value for value in model.graph.output):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if stale:
        # One that is wrong is one of many: those that inference does not reach are as old.
        made = {name for node in model.graph.node for name in node.output}
        kept = [one for one in model.graph.value_info if one.name in made and not _known(inferred.get(one.name))]
        del result.graph.value_info[:]
        result.graph.value_info.extend(kept)
    for value in result.graph.output:
        value.CopyFrom(outputs[value.name])
    return result


def _known(value: onnx.ValueInfoProto | None) -> bool:
    return value is not None and value.type.tensor_type.elem_type != onnx.TensorProto.UNDEFINED


def _contradicts(value: onnx.ValueInfoProto, inferred: onnx.ValueInfoProto | None) -> bool:
    if inferred is None or not _known(inferred) or not value.type.HasField("tensor_type"):
        return False
    told, true = value.type.tensor_type, inferred.type.tensor_type
    if told.elem_type not in (onnx.TensorProto.UNDEFINED, true.elem_type):
        return True
    if not told.HasField("shape") or not true.HasField("shape"):
        return False
    if len(told.shape.dim) != len(true.shape.dim):
        return True
    return any(_axis_contradicts(one, other) for one, other in zip(told.shape.dim, true.shape.dim, strict=True))


def _axis_contradicts(told: onnx.TensorShapeProto.Dimension, true: onnx.TensorShapeProto.Dimension) -> bool:
    if told.HasField("dim_value"):
        return bool(true.dim_param) or (true.HasField("dim_value") and true.dim_value != told.dim_value)
    return False


def _true_output(value: onnx.ValueInfoProto, inferred: onnx.ValueInfoProto | None) -> onnx.ValueInfoProto:
    """The output with the type that the graph gives it: what it says and holds stays, but for names of fixed sizes."""
    told = value.type.tensor_type
    if not _known(inferred):
        if told.elem_type == onnx.TensorProto.UNDEFINED and not value.type.WhichOneof("value") == "sequence_type":
            raise InputError(
                "EF306", f"the type of output {value.name!r} cannot be inferred, and the file does not say it"
            )
        return value
    assert inferred is not None
    true = inferred.type.tensor_type
    result = onnx.ValueInfoProto()
    result.CopyFrom(value)
    if not told.HasField("shape") or _contradicts(value, inferred) or told.elem_type != true.elem_type:
        result.type.CopyFrom(inferred.type)
        return result
    for axis, known in zip(result.type.tensor_type.shape.dim, true.shape.dim, strict=False):
        if axis.HasField("dim_param") and known.HasField("dim_value"):
            axis.dim_value = known.dim_value
    return result
