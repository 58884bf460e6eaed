"""The tensors that a model stores: where they are, whether their data is whole, and reading it from other files.

What a file says of itself is not believed: a tensor's data has to be as long as its shape and type ask for before
anything makes an array of it, and other files are read only where they lie beside the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto, helper

from edgeformer.errors import InputError
from edgeformer.graph.protos import PACKED, subgraphs, tensor_bytes

__all__ = ["check_tensors", "graph_tensors", "load_external", "stored_tensors"]

_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def stored_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """All tensors stored anywhere in a model: the initializers, those of the nodes, those of the functions."""
    yield from graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All tensors stored in a graph and in the graphs of its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        yield from attribute.tensors
    for graph in subgraphs(node):
        yield from graph_tensors(graph)


def check_tensors(model: onnx.ModelProto, name: object) -> None:
    """Check that each tensor's data is as long as its shape and type ask for.

    Args:
        model: the model, external data not read yet or read.
        name: what to call the model in a message.

    Raises:
        InputError: names the first tensor of which that is not so, with what it has and what it needs.
    """
    for tensor in stored_tensors(model):
        fault = _fault(tensor)
        if fault is not None:
            raise InputError(
                "EF302",
                f"{name} is an invalid ONNX model: tensor {tensor.name!r} {fault}. It is damaged: export or copy it "
                "again",
            )


def _fault(tensor: TensorProto) -> str | None:
    if any(size < 0 for size in tensor.dims):
        return f"has a negative size in its shape {list(tensor.dims)}"
    if tensor.data_type == TensorProto.UNDEFINED or tensor.data_type not in TensorProto.DataType.values():
        return f"is of the unknown type {tensor.data_type}"
    elements = math.prod(tensor.dims)
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    if tensor.HasField("raw_data"):
        if tensor.data_type == TensorProto.STRING:
            return "holds text as raw bytes"
        have, need, unit = len(tensor.raw_data), tensor_bytes(tensor), "bytes"
    else:
        have, need, unit = len(_typed_data(tensor)), _typed_elements(tensor, elements), "numbers"
    if have == need:
        return None
    return f"of shape {list(tensor.dims)} holds {have} {unit} where its shape and type take {need}"


def _typed_data(tensor: TensorProto) -> list[object]:
    field = helper.tensor_dtype_to_field(tensor.data_type)
    data: list[object] = getattr(tensor, field)
    return data


def _typed_elements(tensor: TensorProto, elements: int) -> int:
    if tensor.data_type in _COMPLEX:
        return 2 * elements
    return -(-elements // PACKED.get(tensor.data_type, 1))


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Read, in place, what the tensors of a model keep in other files.

    Args:
        model: the model.
        path: its file; the other files lie in its folder, and nowhere else. Where the file is a link, as in a model
            cache, they may lie in the folder that it points to.

    Raises:
        InputError: lists each file that is missing, too short, outside of these folders or cannot be read.
    """
    external = [tensor for tensor in stored_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    places = [_Place.of(tensor, path) for tensor in external]
    faults = sorted({place for place in places if isinstance(place, str)})
    if faults:
        raise InputError("EF303", f"{path} keeps weights in other files: " + "; ".join(faults[:10]))
    for tensor, place in zip(external, places, strict=True):
        assert isinstance(place, _Place)
        tensor.raw_data = place.read(path)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


class _Place:
    """Where a tensor's data lies."""

    def __init__(self, file: Path, offset: int, length: int) -> None:
        self.file = file
        self.offset = offset
        self.length = length

    @classmethod
    def of(cls, tensor: TensorProto, path: Path) -> _Place | str:
        """The place, or what is wrong with the tensor's reference to it."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location or "\0" in location:
            return f"tensor {tensor.name!r} names {'no file' if not location else f'the file {location!r}'}"
        if tensor.data_type == TensorProto.STRING or _fault_of_shape(tensor):
            return f"tensor {tensor.name!r} of shape {list(tensor.dims)} and type {tensor.data_type} cannot lie there"
        file = path.parent / location
        try:
            allowed = [path.parent.resolve(), path.resolve().parent]
            inside = any(file.resolve().is_relative_to(folder) for folder in allowed)
            if Path(location).is_absolute() or not inside:
                return f"{location!r} lies outside the model's folder, which is not allowed: put it beside the model"
            if not file.is_file():
                return f"{file} is missing: copy it beside the model"
            size = file.stat().st_size
        except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
            return f"{location!r} cannot be read ({error})"
        need = tensor_bytes(tensor)
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or need)
        except ValueError:
            return f"tensor {tensor.name!r} has offset {entries.get('offset')!r} and length {entries.get('length')!r}"
        if length != need:
            return f"tensor {tensor.name!r} of shape {list(tensor.dims)} takes {need} bytes and {length} are said"
        if offset < 0 or offset + length > size:
            return f"{file} is too short ({size} bytes): it is damaged or belongs to another model"
        return cls(file, offset, length)

    def read(self, path: Path) -> bytes:
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        except OSError as error:
            raise InputError("EF303", f"{path} keeps weights in {self.file}, which cannot be read: {error}") from error
        if len(data) != self.length:
            raise InputError("EF303", f"{path} keeps weights in {self.file}, which changed while it was read")
        return data


def _fault_of_shape(tensor: TensorProto) -> bool:
    return any(size < 0 for size in tensor.dims) or tensor.data_type not in set(TensorProto.DataType.values()) - {
        TensorProto.UNDEFINED
    }
