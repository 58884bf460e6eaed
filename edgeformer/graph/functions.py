"""A graph in place of calls of functions: those that a model brings along, and those that ONNX defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import onnx
from onnx import FunctionProto, inliner

from edgeformer.errors import InputError
from edgeformer.graph.opset import model_opset, raise_opset
from edgeformer.graph.protos import STANDARD_DOMAINS, attribute, describe, is_standard, subgraphs
from edgeformer.graph.shape_inference import infer_values
from edgeformer.ops.bi_level_routing_attention import DOMAIN, OP_TYPE, is_op, with_function

__all__ = ["lower_new_ops", "without_functions"]

# The opset up to which TensorRT has an operator of its own for what ONNX defines as a function (LayerNormalization,
# Gelu); later ones (RMSNormalization, RotaryEmbedding, Attention, Swish) it has not, and the fuser looks for the parts.
_KNOWN_OPSET = 22
# Nodes that calls may become in all: more than any model has, few enough for memory.
_MOST_NODES = 1_000_000
_Key = tuple[str, str]


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the nodes of its functions in place of their calls, the op's apart; itself where it has none.

    A function that was written at another opset than the model's is converted to that one.

    Raises:
        InputError: a function calls itself, calls of functions become too many nodes, or one cannot be converted.
    """
    if all((function.domain, function.name) == (DOMAIN, OP_TYPE) for function in model.functions):
        return model
    functions = {(one.domain, one.name): one for one in model.functions if (one.domain, one.name) != (DOMAIN, OP_TYPE)}
    _check_size(model, functions)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.functions[:]
    result.functions.extend(functions.values())
    version = model_opset(model)
    for function in result.functions:
        _align(function, version)
    newest = max(_opset(function) for function in result.functions)
    if newest > version:
        # What a later opset brought has no form in an earlier one, so the model goes up to its functions.
        version, result = newest, raise_opset(result, newest)
        for function in result.functions:
            _align(function, version)
    mixed = any(_opset(function) not in (0, version) for function in result.functions)
    try:
        if mixed:
            # The converter asks for the types of what a function is given, and does not infer them.
            known = {value.name for value in (*model.graph.input, *model.graph.output)}
            del result.graph.value_info[:]
            result.graph.value_info.extend(one for name, one in infer_values(result).items() if name not in known)
        inlined: onnx.ModelProto = inliner.inline_local_functions(result, convert_version=mixed)
    except Exception as error:  # the inliner raises RuntimeError, and the converter its own ConvertError
        raise InputError("EF344", f"the functions of the model cannot be put in place: {error}") from error
    left = sorted({f"{node.domain}::{node.op_type}" for node in _nodes(inlined.graph.node) if _key(node) in functions})
    if left:
        opsets = {key: _opset(function) for key, function in functions.items()}
        raise InputError(
            "EF344",
            f"the functions {', '.join(left[:5])} are written at other opsets "
            f"({', '.join(map(str, sorted(set(opsets.values()))))}) than the model ({model_opset(model)}), and ONNX "
            "cannot convert them: export the whole model at one opset",
        )
    return with_function(inlined) if any(is_op(node) for node in inlined.graph.node) else inlined


def _key(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type


def _opset(function: FunctionProto) -> int:
    return max((one.version for one in function.opset_import if one.domain in STANDARD_DOMAINS), default=0)


def _align(function: FunctionProto, version: int) -> None:
    """Stamp a function with the model's opset where all its operators are the same at both."""
    own = _opset(function)
    names = {node.op_type for node in _nodes(function.node) if node.domain in STANDARD_DOMAINS}
    if own == version or not all(_same(name, own, version) for name in names):
        return
    for opset in function.opset_import:
        if opset.domain in STANDARD_DOMAINS:
            opset.version = version


def _same(op_type: str, first: int, second: int) -> bool:
    try:
        found = {onnx.defs.get_schema(op_type, one, "").since_version for one in (first, second)}
    except onnx.defs.SchemaError:
        return False
    return len(found) == 1


def _nodes(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes and those of the graphs in them."""
    found = list(nodes)
    for node in nodes:
        for graph in subgraphs(node):
            found += _nodes(graph.node)
    return found


def _check_size(model: onnx.ModelProto, functions: Mapping[_Key, FunctionProto]) -> None:
    """Count what the calls become before anything is copied: a few functions that call each other can be anything."""
    sizes: dict[_Key, int] = {}

    def size(nodes: Sequence[onnx.NodeProto], within: tuple[_Key, ...]) -> int:
        total = 0
        for node in _nodes(nodes):
            key = _key(node)
            if key not in functions:
                total += 1
                continue
            if key in within or len(within) > 100:
                raise InputError("EF344", f"the function {'::'.join(key)} of the model calls itself: export it again")
            if key not in sizes:
                sizes[key] = size(functions[key].node, (*within, key))
            total += sizes[key]
        return total

    total = size(model.graph.node, ())
    if total > _MOST_NODES:
        raise InputError(
            "EF344", f"calls of the model's functions become {total} nodes, more than {_MOST_NODES}: export it again"
        )


def lower_new_ops(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with ONNX's own definition in place of each operator that came after opset 22 and is a function.

    Those are Attention, RotaryEmbedding, RMSNormalization, Swish and what follows them. The model's opset stays. The
    model itself is returned where it has none of them.

    Raises:
        InputError: such an operator has no definition for what it is given here.
    """
    new = [node for node in _nodes(model.graph.node) if _is_new(node)]
    if not new:
        return model
    types = infer_values(model, data_prop=True)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    version = model_opset(model)
    for number, node in enumerate(node for node in result.graph.node if _is_new(node)):
        kinds = []
        for name in node.input:
            kind = onnx.TypeProto()
            if name in stored:
                kind = onnx.helper.make_tensor_type_proto(stored[name].data_type, list(stored[name].dims))
            elif name in types:
                kind = types[name].type
            kinds.append(kind)
        body = _definition(node, kinds, version)
        body.domain, body.name = f"edgeformer.lowered.{number}", node.op_type
        node.domain = body.domain
        result.functions.append(body)
        result.opset_import.add(domain=body.domain, version=1)
    lowered = without_functions(result)
    kept = [one for one in lowered.opset_import if not one.domain.startswith("edgeformer.lowered.")]
    del lowered.opset_import[:]
    lowered.opset_import.extend(kept)
    if any(_is_new(node) for node in _nodes(lowered.graph.node)):
        # A definition may use others: RotaryEmbedding's does not, Attention's may.
        return lower_new_ops(lowered)
    return lowered


def _is_new(node: onnx.NodeProto) -> bool:
    if not is_standard(node, node.op_type) or not onnx.defs.has(node.op_type):
        return False
    first = min(_history().get(node.op_type, (0,)))
    return first > _KNOWN_OPSET and _has_definition(node.op_type)


@cache
def _history() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in STANDARD_DOMAINS:
            found[schema.name] = (*found.get(schema.name, ()), schema.since_version)
    return found


def _has_definition(op_type: str) -> bool:
    schema = _schema(op_type)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _schema(op_type: str, version: int | None = None) -> Any:
    # The binding's type information lacks what there is to know of definitions.
    return onnx.defs.get_schema(op_type) if version is None else onnx.defs.get_schema(op_type, version, "")


def _definition(node: onnx.NodeProto, types: Sequence[onnx.TypeProto], version: int) -> FunctionProto:
    """The body that ONNX gives for this node, as a function that takes no attributes of a caller."""
    schema = _schema(node.op_type, version)
    content = b""
    try:
        if schema.has_context_dependent_function:
            at = max((one for one in schema.context_dependent_function_opset_versions if one <= version), default=0)
            given = [kind.SerializeToString() for kind in types]
            content = schema.get_context_dependent_function_with_opset_version(
                at or schema.since_version, node.SerializeToString(), given
            )
        elif schema.has_function:
            at = max((one for one in schema.function_opset_versions if one <= version), default=0)
            content = schema.get_function_with_opset_version(at or schema.since_version)
    except Exception as error:  # the binding's errors have no common base
        raise _no_definition(node, version, str(error)) from error
    body = FunctionProto()
    if content:
        body.ParseFromString(content)
    if not body.node:
        raise _no_definition(node, version, "ONNX gives no definition for these inputs and attributes")
    missing = [name for name in body.attribute if attribute(node, name) is None]
    defaults = [schema.attributes[name].default_value for name in missing if name in schema.attributes]
    body.attribute_proto.extend(one for one in defaults if one.name)
    kept = [name for name in body.attribute if name not in {one.name for one in defaults if one.name}]
    del body.attribute[:]
    body.attribute.extend(kept)
    return body


def _no_definition(node: onnx.NodeProto, version: int, why: str) -> InputError:
    return InputError(
        "EF345",
        f"{describe(node)} of opset {version} cannot be taken apart ({why}), and TensorRT does not know it: export the "
        f"model at opset {_KNOWN_OPSET} or lower",
    )
