"""A model in the form in which ONNX Runtime loads it: a path, or bytes and the weights that do not fit into them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

from edgeformer.errors import InputError
from edgeformer.runtime.bfloat16 import has_bfloat16, with_bfloat16_rounding
from edgeformer.runtime.session import Array
from edgeformer.runtime.wide_quantization import quantizes, with_wide_quantization

__all__ = ["OnnxModel", "OnnxSource", "onnx_source"]

OnnxModel = ModelProto | bytes | str | os.PathLike[str]

# A protobuf message ends at 2 GiB. What is added to it, and what stands beside the weights, needs some room.
_LARGEST_MESSAGE = 2**31 - 2**20
# Weights of fewer elements stay in the model: shape inference and constant folding read them there.
_SMALL = 256
# Weights that NumPy holds in a type of its own, as ONNX Runtime asks for them.
_PLAIN_TYPES = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
    }
)


class OnnxSource(NamedTuple):
    """What ONNX Runtime loads.

    Attributes:
        model: the path of a file, or a serialized model.
        name: what to call the model in a message.
        folder: where the external data of a serialized model lies; None where it has none.
        weights: initializers to hand over beside a serialized model, by name.
        elements: of all weights together.
    """

    model: bytes | str
    name: str
    folder: Path | None
    weights: dict[str, Array]
    elements: int


def onnx_source(model: OnnxModel, outputs: Sequence[str] | None, *, widen: bool = False) -> OnnxSource:
    """Make a model ready for ONNX Runtime, with as few copies of its weights as it takes.

    A file is handed over by its path, so that ONNX Runtime maps external data into memory. A model in memory is
    serialized once; one that is too large for that is serialized without its weights.

    Args:
        model: the model, its serialized bytes, or the path of its file (external data beside it is found).
        outputs: tensors that have to be outputs of the model, wherever in its graph they are made.
        widen: quantize FP16 values as FP32 (`edgeformer.runtime.wide_quantization`).

    Raises:
        InputError: no such file, not an ONNX model, a tensor that the graph does not have, or a model too large for
            what it needs.
    """
    if isinstance(model, (str, os.PathLike)):
        return _from_file(Path(model), outputs or (), widen)
    if isinstance(model, bytes):
        try:
            proto = onnx.load_model_from_string(model)
        except Exception as error:
            raise InputError("EF301", f"these {len(model)} bytes are not an ONNX model ({error})") from error
        name = _name(proto)
        if not _needs_rewriting(proto, widen):
            added = _declared(_inside(proto.graph, outputs or (), name))
            return OnnxSource(model + added, name, None, {}, _elements(proto))
    else:
        proto, name = model, _name(model)
    return _from_proto(proto, name, outputs or (), widen)


def _needs_rewriting(model: ModelProto, widen: bool) -> bool:
    """Whether ONNX Runtime is given another graph than this one."""
    return has_bfloat16(model) or (widen and quantizes(model))


def _name(model: ModelProto) -> str:
    return f"the model {model.graph.name!r}"


def _from_file(path: Path, outputs: Sequence[str], widen: bool) -> OnnxSource:
    if not path.is_file():
        raise InputError("EF102", f"{path}: there is no such file")
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except Exception as error:
        raise InputError("EF301", f"{path}: not an ONNX model ({error})") from error
    if _needs_rewriting(proto, widen):
        try:
            return _from_proto(onnx.load_model(path), str(path), outputs, widen)
        except OSError as error:
            raise InputError("EF303", f"{path}: its external data cannot be read ({error})") from error
    added = _inside(proto.graph, outputs, str(path))
    if not added:
        return OnnxSource(str(path), str(path), None, {}, _elements(proto))
    return OnnxSource(proto.SerializeToString() + _declared(added), str(path), path.parent, {}, _elements(proto))


def _from_proto(model: ModelProto, name: str, outputs: Sequence[str], widen: bool) -> OnnxSource:
    if has_bfloat16(model):
        if _serialized(model) is None:
            raise InputError(
                "EF808",
                f"{name} has bfloat16 in it and takes more than 2 GiB: on the CPU it is rewritten in FP32, and that "
                "works up to 2 GiB. Run it as FP16 or FP32",
            )
        model = with_bfloat16_rounding(model)
    if widen and quantizes(model):
        model = with_wide_quantization(model)
    added = _declared(_inside(model.graph, outputs, name))
    content = _serialized(model)
    if content is not None:
        return OnnxSource(content + added, name, None, {}, _elements(model))
    light, weights = _without_weights(model)
    content = _serialized(light)
    if content is None:
        raise InputError(
            "EF809",
            f"{name} takes more than 2 GiB without its initializers, and ONNX Runtime loads no more: store its "
            "constants as initializers",
        )
    return OnnxSource(content + added, name, None, weights, _elements(model))


def _elements(model: ModelProto) -> int:
    """Elements of the model's weights, wherever they lie; those in attributes of nodes and in subgraphs left out."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


def _serialized(model: ModelProto) -> bytes | None:
    """The model as one message, or None where it is too large for that."""
    try:
        content = bytes(model.SerializeToString())
    except Exception:  # protobuf's EncodeError, or ValueError in older releases; its size alone cannot be asked for
        return None
    return content if len(content) <= _LARGEST_MESSAGE else None


def _inside(graph: GraphProto, wanted: Iterable[str], name: str) -> list[str]:
    """Those of the wanted tensors that are in the graph and are no outputs of it yet."""
    outputs = [value.name for value in graph.output]
    made = {output for node in graph.node for output in node.output if output}
    known = made.union(outputs, (value.name for value in graph.input), (weight.name for weight in graph.initializer))
    unknown = [tensor for tensor in wanted if tensor not in known]
    if unknown:
        raise InputError(
            "EF806",
            f"{name} has no tensor {', '.join(map(repr, unknown))} to give; its outputs are "
            f"{', '.join(map(repr, outputs)) or 'none'}",
        )
    return [tensor for tensor in dict.fromkeys(wanted) if tensor not in outputs]


def _declared(outputs: Sequence[str]) -> bytes:
    """What to append to a serialized model to give it further outputs: protobuf merges what it reads one after another.

    ONNX Runtime fills in the types of outputs that are declared by name only.
    """
    if not outputs:
        return b""
    graph = GraphProto(output=[ValueInfoProto(name=name) for name in outputs])
    return bytes(ModelProto(graph=graph).SerializeToString())


def _without_weights(model: ModelProto) -> tuple[ModelProto, dict[str, Array]]:
    """The model with references in place of its large initializers, and these by name."""
    graph = model.graph
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    light.graph.name = graph.name
    for field in ("node", "input", "output", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(graph, field))
    weights: dict[str, Array] = {}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) < _SMALL or tensor.data_type not in _PLAIN_TYPES:
            light.graph.initializer.add().CopyFrom(tensor)
            continue
        weights[tensor.name] = numpy_helper.to_array(tensor)
        reference = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        reference.data_location = TensorProto.EXTERNAL
        # ONNX Runtime asks for a place although the weight is handed over.
        reference.external_data.add(key="location", value="in memory")
    return light, weights
