"""The one input of a model that takes images: its layout, its type, and fixing its size."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from edgeformer.errors import InputError
from edgeformer.graph.protos import fed_inputs
from edgeformer.graph.repairs import with_true_types
from edgeformer.runtime.session import channels_last

__all__ = ["ImageInput", "array_shape", "image_input", "with_input_size"]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_PIXELS = (TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64)


@dataclass(frozen=True)
class ImageInput:
    """What a model takes.

    Attributes:
        name: of the input.
        batch: images that it fixes; None where they are free.
        height: pixels; None where they are free.
        width: pixels; None where they are free.
        channels_last: whether it is ``[batch, height, width, 3]`` and not ``[batch, 3, height, width]``.
        pixels: whether it takes whole pixel values, 0 to 255, and normalizes them itself.
    """

    name: str
    batch: int | None
    height: int | None
    width: int | None
    channels_last: bool
    pixels: bool


def image_input(model: onnx.ModelProto) -> ImageInput:
    """The model's input.

    Raises:
        InputError: it has none, several, or one that takes no batch of images of a type that images become.
    """
    inputs = fed_inputs(model.graph)
    shapes = {value.name: _shape(value) for value in inputs}
    axes = next(iter(shapes.values()), ())
    last = channels_last(axes)
    if len(inputs) != 1 or not _is_image(axes):
        raise InputError(
            "EF321",
            f"the inputs are {', '.join(f'{name!r} {list(shape)}' for name, shape in shapes.items()) or 'none'}; a "
            "build needs one, [batch, 3, height, width] or [batch, height, width, 3]. With --preprocessing none it may "
            "be floats of another shape",
        )
    if any(isinstance(size, int) and size < 1 for size in axes):
        raise InputError("EF321", f"the input {inputs[0].name!r} is {list(axes)}: every size has to be 1 or more")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (*_FLOATS, *_PIXELS):
        raise InputError(
            "EF346",
            f"the input {inputs[0].name!r} is of type {TensorProto.DataType.Name(kind)}: images are given as "
            f"{', '.join(TensorProto.DataType.Name(one) for one in (*_FLOATS, *_PIXELS))}. Export it with one of them",
        )
    sizes = [size if isinstance(size, int) else None for size in axes]
    height, width = (sizes[1], sizes[2]) if last else (sizes[2], sizes[3])
    return ImageInput(inputs[0].name, sizes[0], height, width, last, kind in _PIXELS)


def array_shape(model: onnx.ModelProto) -> tuple[int | str, ...] | None:
    """The shape of the model's one input of floats where that is no image, batch included; None of any other model.

    Raises:
        InputError: an axis besides the batch has no size.
    """
    inputs = fed_inputs(model.graph)
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type not in _FLOATS:
        return None
    shape = _shape(inputs[0])
    if len(shape) < 2 or _is_image(shape):
        return None
    if not all(isinstance(size, int) and size >= 1 for size in shape[1:]) or shape[0] == 0:
        raise InputError(
            "EF321",
            f"the input {inputs[0].name!r} is {list(shape)}: where it is no image, every axis but the batch needs a "
            "size. Export it with these sizes",
        )
    return shape


def _is_image(axes: tuple[int | str, ...]) -> bool:
    return len(axes) == 4 and (channels_last(axes) or axes[1] == 3 or isinstance(axes[1], str))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in dims)


def with_input_size(model: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """``model`` with its free height and width fixed, in its input and in all that follows; itself if they are fixed.

    Args:
        model: a model with one image input.
        height: pixels.
        width: pixels.

    Raises:
        InputError: as `image_input`, or the graph does not work at this size.
    """
    given = image_input(model)
    if given.height is not None and given.width is not None:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    (value,) = fed_inputs(result.graph)
    axes = value.type.tensor_type.shape.dim
    for axis, size in zip((1, 2) if given.channels_last else (2, 3), (height, width), strict=True):
        axes[axis].dim_value = size
    return with_true_types(result)
