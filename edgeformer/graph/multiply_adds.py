"""How many multiply-adds each layer of a graph takes for one image: what INT8 makes cheaper, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

from edgeformer.graph.editing import unique_names
from edgeformer.graph.protos import attribute, fed_inputs, is_standard
from edgeformer.graph.shape_inference import infer_values, skeleton
from edgeformer.ops import bi_level_routing_attention as bra

__all__ = ["multiply_adds"]

_Shape = tuple[int, ...]


def multiply_adds(model: onnx.ModelProto) -> dict[str, int | None]:
    """The multiply-adds of each layer for one image, in graph order.

    Counted are Conv, ConvTranspose, Gemm, MatMul (of two activations, too) and the attention op: its routing, its two
    products and LePE. A bias, norms and whatever works element by element are not.

    Args:
        model: a graph, float or with Q/DQ pairs, whose inputs carry the images along their first dimension.

    Returns:
        A layer's first output -> its multiply-adds; None where shape inference does not tell the shapes that they
        depend on. A batch that the graph fixes is divided by; one that it leaves free is taken as 1.

    Raises:
        InputError: an attention node has attributes that the op does not take, or a shape that does not fit them.
    """
    shapes, batch = _shapes(model)
    found: dict[str, int | None] = {}
    for node in model.graph.node:
        if is_standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            count = _product(node, shapes)
        elif bra.is_op(node):
            count = _attention(node, shapes)
        else:
            continue
        found[node.output[0]] = None if count is None else count // batch
    return found


def _shapes(model: onnx.ModelProto) -> tuple[dict[str, _Shape], int]:
    """The shapes that are known, and the number of images they are for."""
    bare = _with_slices(skeleton(model))
    fed = {value.name for value in fed_inputs(model.graph)}
    batch = 1
    for value in bare.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in fed or not dims:
            continue
        if not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
        batch = max(batch, dims[0].dim_value)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for name, value in infer_values(bare, data_prop=True).items():
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return shapes, batch


def _with_slices(bare: onnx.ModelProto) -> onnx.ModelProto:
    """The values' channels in the place of each attention node: of the same shape, which inference finds in one step.

    It does not find its way through every body of the op.
    """
    name = unique_names(bare)
    nodes = list(bare.graph.node)
    del bare.graph.node[:]
    for node in nodes:
        if not bra.is_op(node):
            bare.graph.node.append(node)
            continue
        attributes = bra.Attributes.from_node(node)
        bounds = {name("start"): 2 * attributes.qk_dim, name("stop"): 2**31, name("axis"): -1}
        bare.graph.initializer.extend(
            helper.make_tensor(key, TensorProto.INT64, [1], [at]) for key, at in bounds.items()
        )
        values = name("values") if attributes.quantized else node.output[0]
        bare.graph.node.append(helper.make_node("Slice", [node.input[0], *bounds], [values]))
        if attributes.quantized:
            bare.graph.node.append(helper.make_node("Cast", [values], [node.output[0]], to=attributes.output_type))
    return bare


def _product(node: onnx.NodeProto, shapes: Mapping[str, _Shape]) -> int | None:
    """Each element of the output is a sum of products; only of a ConvTranspose each of the input is in as many."""
    first, second, output = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "ConvTranspose":
        return None if first is None or second is None else math.prod(first) * math.prod(second[1:])
    if node.op_type == "Conv":
        return None if output is None or second is None else math.prod(output) * math.prod(second[1:])
    if output is None or first is None:
        return None
    return math.prod(output) * first[0 if attribute(node, "transA", 0) else -1]


def _attention(node: onnx.NodeProto, shapes: Mapping[str, _Shape]) -> int | None:
    qkv: Sequence[int] | None = shapes.get(node.input[0])
    if qkv is None:
        return None
    attributes = bra.Attributes.from_node(node)
    attributes.check_shape(tuple(qkv))
    images, height, width, channels = qkv
    dim = attributes.value_channels(channels)
    regions, tokens = attributes.regions**2, height * width
    routing = regions * regions * attributes.qk_dim
    keys = attributes.topk * (tokens // regions)
    lepe = tokens * dim * (attributes.lepe_kernel or 0) ** 2
    return images * (routing + tokens * keys * (attributes.qk_dim + dim) + lepe)
