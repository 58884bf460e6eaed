"""Putting the normalization of images into a graph: its input becomes bytes, ``[batch, height, width, 3]``.

Bytes are a quarter of what FP32 takes on the way to the device, and nobody has to normalize them in the same way as
the training did. The arithmetic is that of `edgeformer.data.Preprocessing.normalize`, in FP32 and in the same order, so
that the graph gives what it gave before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.data import Preprocessing
from edgeformer.errors import InputError
from edgeformer.graph.editing import UniqueNames, complete, draft, unique_names
from edgeformer.graph.image_input import image_input
from edgeformer.graph.protos import captured_names, fed_inputs
from edgeformer.graph.repairs import with_true_types

__all__ = ["check_pixel_input", "with_pixel_input"]


def check_pixel_input(model: onnx.ModelProto) -> bool:
    """Whether the model's input can become bytes; False where it takes them as ``[batch, height, width, 3]`` already.

    Raises:
        InputError: as `image_input`, or the input takes whole pixel values in another form, or cannot be replaced.
    """
    given = image_input(model)
    (value,) = fed_inputs(model.graph)
    kind = value.type.tensor_type.elem_type
    if given.pixels:
        if kind == TensorProto.UINT8 and given.channels_last:
            return False
        shape = "[batch, height, width, 3]" if given.channels_last else "[batch, 3, height, width]"
        raise InputError(
            "EF842",
            f"the input {given.name!r} takes pixels already, as {TensorProto.DataType.Name(kind)} {shape}: leave out "
            "--input uint8",
        )
    if given.height == 3:
        raise InputError(
            "EF842",
            f"the input {given.name!r} is 3 pixels high, and as bytes [batch, 3, width, 3] nothing would tell its rows "
            "from its channels: leave out --input uint8",
        )
    inside = [node.name or node.op_type for node in model.graph.node if given.name in captured_names(node)]
    if inside or any(output.name == given.name for output in model.graph.output):
        where = f"inside of {', '.join(inside)}" if inside else "as an output"
        raise InputError(
            "EF842",
            f"the input {given.name!r} is read {where}, where its bytes would arrive instead of the image: leave out "
            "--input uint8, or put an Identity behind the input",
        )
    return True


def with_pixel_input(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """A copy of ``model`` that takes bytes ``[batch, height, width, 3]``, RGB, and normalizes them; the names stay.

    Args:
        model: takes normalized images of a float type, ``[batch, 3, height, width]`` or ``[batch, height, width, 3]``.
        preprocessing: what normalized them in front of it.

    Raises:
        InputError: as `check_pixel_input`.
    """
    if not check_pixel_input(model):
        return model
    given = image_input(model)
    result = draft(model)
    name = unique_names(model)
    (value,) = fed_inputs(result.graph)
    kind = value.type.tensor_type.elem_type
    nodes, constants, last = _normalization(given.name, preprocessing, name)
    if not given.channels_last:
        nodes.append(_node("Transpose", [last], name(f"{given.name}_planes"), perm=[0, 3, 1, 2]))
        last = nodes[-1].output[0]
    if kind != TensorProto.FLOAT:
        nodes.append(_node("Cast", [last], name(f"{given.name}_cast"), to=kind))
        last = nodes[-1].output[0]
    for node in result.graph.node:
        node.input[:] = [last if read == given.name else read for read in node.input]
    nodes.extend(result.graph.node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(constants)
    axes = list(value.type.tensor_type.shape.dim)
    batch, height, width, channels = axes if given.channels_last else (axes[0], axes[2], axes[3], axes[1])
    shape = onnx.TensorShapeProto(dim=[batch, height, width, channels])
    shape.dim[3].dim_value = 3
    value.type.tensor_type.elem_type = TensorProto.UINT8
    value.type.tensor_type.shape.CopyFrom(shape)
    # A note on the input among the inner tensors would contradict it.
    stale = [position for position, one in enumerate(result.graph.value_info) if one.name == given.name]
    for position in reversed(stale):
        del result.graph.value_info[position]
    complete(result, model)
    return with_true_types(result)


def _normalization(
    pixels: str, preprocessing: Preprocessing, name: UniqueNames
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """The nodes from bytes to normalized floats, channels last; their constants; and the name of the result.

    The Cast comes first: TensorRT casts bytes and does nothing else with them.
    """
    nodes = [_node("Cast", [pixels], name(f"{pixels}_float"), to=TensorProto.FLOAT)]
    constants: list[onnx.TensorProto] = []

    def add(op_type: str, word: str, constant: object) -> None:
        array = np.asarray(constant, np.float32)
        constants.append(numpy_helper.from_array(array, name(f"{pixels}_{word}")))
        nodes.append(_node(op_type, [nodes[-1].output[0], constants[-1].name], name(f"{pixels}_{op_type.lower()}")))

    if preprocessing.normalization != "none":
        add("Div", "range", 255)
    if preprocessing.normalization == "mean_std":
        add("Sub", "mean", preprocessing.mean)
        add("Div", "std", preprocessing.std)
    return nodes, constants, nodes[-1].output[0]


def _node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], name=f"{output}_node", **attributes)
