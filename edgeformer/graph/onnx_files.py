"""Reading and writing ONNX files: whole models, or one clear error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import EncodeError, Message
from onnx import external_data_helper

from edgeformer.artifacts import replacing, sha256_of_bytes
from edgeformer.errors import InputError
from edgeformer.graph.editing import copy_fields, draft
from edgeformer.graph.node_order import in_topological_order
from edgeformer.graph.protos import tensor_bytes
from edgeformer.graph.repairs import with_true_types
from edgeformer.graph.stored_tensors import check_tensors, load_external, stored_tensors
from edgeformer.ops.bi_level_routing_attention import DOMAIN, OP_TYPE

__all__ = ["files_of", "load_model", "model_bytes", "save_model"]

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
    _check_text(model, path)
    load_external(model, path)
    check_tensors(model, path)
    model = in_topological_order(model)
    if any(not value.type.tensor_type.HasField("shape") for value in model.graph.output):
        # ONNX Runtime does without these shapes, the checker does not.
        model = with_true_types(model)
    try:
        _check(model)
    except onnx.checker.ValidationError as error:
        raise InputError("EF302", f"{path} is an invalid ONNX model: {error}") from error
    except ValueError:
        # The checker takes a serialized model, and one beyond 2 GiB cannot be serialized.
        return model
    return model


def files_of(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files that an ONNX model is read from, itself first; itself alone where it cannot be read."""
    path = Path(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        places = [
            entry.value for tensor in stored_tensors(model) for entry in tensor.external_data if entry.key == "location"
        ]
        return (path, *(path.parent / place for place in dict.fromkeys(places)))
    except Exception:  # it cannot be read or parsed: `load_model` says why
        return (path,)


def _check_text(model: onnx.ModelProto, path: Path) -> None:
    """Protobuf takes any bytes for a name, and gives those that are no UTF-8 as bytes."""
    fault = next(_no_text(model, "model"), None)
    if fault is not None:
        raise InputError(
            "EF302",
            f"{path} is an invalid ONNX model: {fault[0]} is {fault[1]!r}, which is no UTF-8. It is damaged: export or "
            "copy it again",
        )


def _no_text(message: Any, place: str) -> Iterator[tuple[str, bytes]]:
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for number, item in [(None, value)] if isinstance(value, (str, bytes, Message)) else enumerate(value):
            here = f"{place}.{field.name}" + ("" if number is None else f"[{number}]")
            if isinstance(item, bytes):
                yield here, item
            elif isinstance(item, Message):
                yield from _no_text(item, here)


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
    weights = sum(tensor_bytes(tensor) for tensor in stored_tensors(model))
    if not _LARGEST_MESSAGE // 2 < weights <= _LARGEST_MESSAGE:
        return weights
    # protobuf serializes a message to tell its size, and fails on one beyond the limit.
    try:
        return int(model.ByteSize())
    except EncodeError:
        return _LARGEST_MESSAGE + 1


def _without_large_weights(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Write the large weights to a file beside ``path``; a copy of the model with references to it."""
    weights = [tensor for tensor in stored_tensors(model) if _is_large(tensor)]
    # Under a name of its own: the file that is replaced may still need another one, often called model.onnx.data.
    digest = sha256_of_bytes(*(tensor.raw_data for tensor in weights))
    target = path.with_name(f"{path.name}.{digest[:16]}.data")
    result = draft(model)
    for tensor in model.graph.initializer:
        copy_fields(tensor, result.graph.initializer.add(), left_out="raw_data" if _is_large(tensor) else "")
    with replacing(target) as partial, partial.open("wb") as file:
        for tensor, reference in zip(stored_tensors(model), stored_tensors(result), strict=True):
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
