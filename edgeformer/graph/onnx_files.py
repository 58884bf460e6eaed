"""Reading and writing ONNX files: whole models, or one clear error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError
from onnx import AttributeProto, TensorProto, external_data_helper

from edgeformer.artifacts import replacing, sha256_of_bytes
from edgeformer.errors import InputError
from edgeformer.graph.editing import copy_fields, draft
from edgeformer.graph.node_order import in_topological_order
from edgeformer.graph.protos import subgraphs, tensor_bytes
from edgeformer.ops.bi_level_routing_attention import DOMAIN, OP_TYPE

__all__ = ["load_model", "model_bytes", "save_model"]

# A protobuf message ends at 2 GiB. The rest of the model beside the weights needs some room.
_LARGEST_MESSAGE = 2**31 - 2**20


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX model with all its weights in memory, external data included.

    Args:
        path: the ``.onnx`` file; external data is looked for beside it, and nowhere else.

    Raises:
        InputError: there is no such file, it is not an ONNX model or is a damaged or invalid one, or external data is
            missing, too short, or outside the model's folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("EF102", f"{path} is a folder; give the .onnx file in it")
    if not path.is_file():
        raise InputError("EF102", f"{path}: there is no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError("EF102", f"{path} cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, whose module has no type information
        raise InputError(
            "EF301", f"{path} is not an ONNX model, or is damaged ({error}): export or copy it again"
        ) from error
    del content  # as large as the model
    # Nearly any bytes are some protobuf message: an ONNX model also says its version and does something.
    if not model.ir_version or not model.graph.node or not model.graph.output:
        missing = "IR version" if not model.ir_version else "node" if not model.graph.node else "output"
        raise InputError("EF301", f"{path} is not an ONNX model: it is a protobuf file without {missing}")
    model = in_topological_order(model)
    external = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    faults = sorted({fault for tensor in external if (fault := _external_fault(tensor, path.parent))})
    if faults:
        raise InputError("EF303", f"{path} keeps weights in other files: " + "; ".join(faults))
    for tensor in external:
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    try:
        _check(model)
    except onnx.checker.ValidationError as error:
        raise InputError("EF302", f"{path} is an invalid ONNX model: {error}") from error
    except ValueError:
        # The checker takes a serialized model, and one beyond 2 GiB cannot be serialized.
        return model
    return model


def _check(model: onnx.ModelProto) -> None:
    # The op's function is edgeformer's own, and the checker would compare its opset with the model's. It is taken out
    # and put back: a copy without it would take the weights twice.
    functions = list(model.functions)
    del model.functions[:]
    model.functions.extend(one for one in functions if (one.domain, one.name) != (DOMAIN, OP_TYPE))
    try:
        onnx.checker.check_model(model)
    finally:
        del model.functions[:]
        model.functions.extend(functions)


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write a model as one file, atomically: the file holds its old content or the whole new one.

    Only a model beyond protobuf's limit of 2 GiB gets a second file beside the first, named after its content, with
    the large weights. It is complete before the first is replaced.

    Args:
        model: the model, with its weights in memory. It is not modified.
        path: the ``.onnx`` file; missing folders are made.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    if model_bytes(model) > _LARGEST_MESSAGE:
        model = _without_large_weights(model, path)
    with replacing(path) as partial:
        partial.write_bytes(model.SerializeToString())


def model_bytes(model: onnx.ModelProto) -> int:
    """Size of the serialized model: exact where it is near the limit of a message, else that of its weights."""
    weights = sum(tensor_bytes(tensor) for tensor in _tensors(model))
    if not _LARGEST_MESSAGE // 2 < weights <= _LARGEST_MESSAGE:
        return weights
    # protobuf serializes a message to tell its size, and fails on one beyond the limit.
    try:
        return int(model.ByteSize())
    except EncodeError:
        return _LARGEST_MESSAGE + 1


def _without_large_weights(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Write the large weights to a file beside ``path``; a copy of the model with references to it."""
    weights = [tensor for tensor in _tensors(model) if _is_large(tensor)]
    # Under a name of its own: the file that is replaced may still need another one, often called model.onnx.data.
    digest = sha256_of_bytes(*(tensor.raw_data for tensor in weights))
    target = path.with_name(f"{path.name}.{digest[:16]}.data")
    result = draft(model)
    for tensor in model.graph.initializer:
        copy_fields(tensor, result.graph.initializer.add(), left_out="raw_data" if _is_large(tensor) else "")
    with replacing(target) as partial, partial.open("wb") as file:
        for tensor, reference in zip(_tensors(model), _tensors(result), strict=True):
            if _is_large(tensor):
                content = tensor.raw_data
                # Pages of 4 KiB, so that a runtime can map the file.
                file.seek(-(-file.tell() // 4096) * 4096)
                reference.raw_data = b""
                external_data_helper.set_external_data(reference, target.name, file.tell(), len(content))
                file.write(content)
                reference.ClearField("raw_data")
    return result


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.HasField("raw_data") and tensor_bytes(tensor) >= 1024


def _external_fault(tensor: onnx.TensorProto, folder: Path) -> str | None:
    """What is wrong with a tensor's reference to another file; None if nothing is."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        return f"tensor {tensor.name!r} names no file"
    file = folder / location
    if Path(location).is_absolute() or not file.resolve().is_relative_to(folder.resolve()):
        return f"{location!r} lies outside the model's folder, which is not allowed: put it beside the model"
    if not file.is_file():
        return f"{file} is missing: copy it beside the model"
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError:
        return f"tensor {tensor.name!r} has offset {entries.get('offset')!r} and length {entries.get('length')!r}"
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        return f"{file} is too short ({file.stat().st_size} bytes): it is damaged or belongs to another model"
    return None


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors stored anywhere in a model: the initializers, those of the nodes, those of the functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        yield from attribute.tensors
    for graph in subgraphs(node):
        yield from _graph_tensors(graph)
