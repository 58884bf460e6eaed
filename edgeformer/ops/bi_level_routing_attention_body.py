"""The ONNX function body of ``edgeformer::BiLevelRoutingAttention``, written in onnxscript.

A module of its own because onnxscript takes half a second to import and most commands never need it: use
`edgeformer.ops.bi_level_routing_attention.function_proto`, which imports this on first call.

Letters in the comments: N batch, S regions per side, P = S * S regions, t = h * w tokens a region, K = topk. Every
value has a name of its own, because TensorRT-RTX 1.7 refuses a body with a value called ``_``.
"""

# The parameters annotated int and float are ONNX attributes; onnxscript evaluates the annotations, so no
# `from __future__ import annotations` here.
import onnx
from onnx import TensorProto, helper
from onnxscript import opset18 as op
from onnxscript import script
from onnxscript.values import Opset

_EDGEFORMER = Opset("edgeformer", 1)


@script(_EDGEFORMER, default_opset=op)  # type: ignore[untyped-decorator] # onnxscript is seen as Any
def BiLevelRoutingAttention(  # type: ignore[no-untyped-def]  # noqa: N802 - the op's name; tensors stay unannotated
    qkv, num_heads: int, regions: int, topk: int, qk_dim: int, scale: float
):
    """The op on FLOAT, FLOAT16 or BFLOAT16 ``qkv``: ``[N, H, W, 2 * qk_dim + dim]`` to ``[N, H, W, dim]``."""
    one = op.Constant(value_ints=[1])
    last = op.Constant(value_ints=[9223372036854775807])
    side = op.Reshape(op.Constant(value_int=regions), one)
    heads = op.Reshape(op.Constant(value_int=num_heads), one)
    picked = op.Reshape(op.Constant(value_int=topk), one)
    key_start = op.Reshape(op.Constant(value_int=qk_dim), one)
    value_start = op.Add(key_start, key_start)
    factor = op.Constant(value_float=scale)
    minus_one = op.Constant(value_ints=[-1])
    zero = op.Constant(value_ints=[0])
    channel_axis = op.Constant(value_ints=[3])
    token_axis = op.Constant(value_ints=[2])

    batch = op.Shape(qkv, start=0, end=1)
    height = op.Div(op.Shape(qkv, start=1, end=2), side)
    width = op.Div(op.Shape(qkv, start=2, end=3), side)
    channels = op.Shape(qkv, start=3, end=4)
    dim = op.Sub(channels, value_start)
    count = op.Mul(side, side)
    tokens = op.Mul(height, width)

    # [N, H, W, C] -> [N, S, h, S, w, C] -> [N, P, t, C]
    tiles = op.Reshape(qkv, op.Concat(batch, side, height, side, width, channels, axis=0))
    region_major = op.Transpose(tiles, perm=[0, 1, 3, 2, 4, 5])
    by_region = op.Reshape(region_major, op.Concat(batch, count, tokens, channels, axis=0))
    query = op.Slice(by_region, zero, key_start, channel_axis)
    key = op.Slice(by_region, key_start, value_start, channel_axis)
    value = op.Slice(by_region, value_start, last, channel_axis)

    # Routing in FP32: [N, P, qk_dim] x [N, qk_dim, P] -> the topk regions of each region, [N, P, K]
    query_mean = op.ReduceMean(op.Cast(query, to=1), token_axis, keepdims=0)
    key_mean = op.ReduceMean(op.Cast(key, to=1), token_axis, keepdims=0)
    logits = op.MatMul(op.Mul(query_mean, factor), op.Transpose(key_mean, perm=[0, 2, 1]))
    best_logits, best_regions = op.TopK(logits, picked, axis=-1, largest=1, sorted=1)  # noqa: RUF059 - the value needs a name

    # Keys and values of the picked regions, [N, P, K, t, channels]
    where = op.Unsqueeze(best_regions, minus_one)
    picked_key = op.GatherND(key, where, batch_dims=1)
    picked_value = op.GatherND(value, where, batch_dims=1)

    # Heads: queries [N, P, heads, t, head_dim], keys [N, P, heads, head_dim, K * t],
    # values [N, P, heads, K * t, value_dim]
    head_width = op.Div(key_start, heads)
    value_width = op.Div(dim, heads)
    keys = op.Mul(picked, tokens)
    query_heads = op.Transpose(
        op.Reshape(query, op.Concat(batch, count, tokens, heads, head_width, axis=0)), perm=[0, 1, 3, 2, 4]
    )
    key_heads = op.Transpose(
        op.Reshape(picked_key, op.Concat(batch, count, keys, heads, head_width, axis=0)), perm=[0, 1, 3, 4, 2]
    )
    value_heads = op.Transpose(
        op.Reshape(picked_value, op.Concat(batch, count, keys, heads, value_width, axis=0)), perm=[0, 1, 3, 2, 4]
    )

    # The scale goes on the queries: unscaled logits could leave the range of FP16.
    scaled_query = op.Mul(query_heads, op.CastLike(factor, qkv))
    attention = op.Softmax(op.Cast(op.MatMul(scaled_query, key_heads), to=1), axis=-1)
    weighted = op.MatMul(op.CastLike(attention, qkv), value_heads)

    # [N, P, heads, t, value_dim] -> [N, S, S, h, w, dim] -> [N, H, W, dim]
    merged = op.Reshape(
        op.Transpose(weighted, perm=[0, 1, 3, 2, 4]), op.Concat(batch, side, side, height, width, dim, axis=0)
    )
    image_major = op.Transpose(merged, perm=[0, 1, 3, 2, 4, 5])
    rows = op.Mul(side, height)
    columns = op.Mul(side, width)
    return op.Reshape(image_major, op.Concat(batch, rows, columns, dim, axis=0))


def build(quantized: bool, lepe: bool) -> onnx.FunctionProto:
    """The function for FLOAT, FLOAT16 and BFLOAT16 input or for INT8 input with scales, without or with LePE.

    INT8 queries, keys and values are dequantized to FLOAT, the whole body runs in FLOAT, LePE included, and the output
    is cast to the attribute ``output_type``.
    """
    function: onnx.FunctionProto = BiLevelRoutingAttention.to_function_proto()
    if lepe:
        _add_lepe(function, quantized)
    if quantized:
        _dequantize(function)
    return function


def _dequantize(function: onnx.FunctionProto) -> None:
    source, result = function.input[0], function.output[0]
    body = [helper.make_node("Constant", [], [name], value_ints=value) for name, value in _DEQUANTIZE_CONSTANTS.items()]
    body += [
        _attribute_value("qk_dim", "dq_qk_dim_scalar"),
        helper.make_node("Reshape", ["dq_qk_dim_scalar", "dq_one"], ["dq_key_start"]),
        helper.make_node("Add", ["dq_key_start", "dq_key_start"], ["dq_value_start"]),
    ]
    bounds = {
        "q": ("dq_zero", "dq_key_start"),
        "k": ("dq_key_start", "dq_value_start"),
        "v": ("dq_value_start", "dq_last"),
    }
    for part, (start, end) in bounds.items():
        step = helper.make_node("Constant", [], [f"dq_{part}_scale"])
        step.attribute.append(_ref("value_float", onnx.AttributeProto.FLOAT, f"{part}_scale"))
        body += [
            step,
            helper.make_node("Slice", [f"{source}_int8", start, end, "dq_axis"], [f"dq_{part}_int8"]),
            helper.make_node("Cast", [f"dq_{part}_int8"], [f"dq_{part}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"dq_{part}_float", f"dq_{part}_scale"], [f"dq_{part}"]),
        ]
    body.append(helper.make_node("Concat", ["dq_q", "dq_k", "dq_v"], [source], axis=3))
    cast = helper.make_node("Cast", [result], [f"{result}_cast"])
    cast.attribute.append(_ref("to", onnx.AttributeProto.INT, "output_type"))
    body += [*function.node, cast]
    del function.node[:]
    function.node.extend(body)
    function.input[0] = f"{source}_int8"
    function.output[0] = f"{result}_cast"
    function.attribute.extend(["q_scale", "k_scale", "v_scale", "output_type"])


def _add_lepe(function: onnx.FunctionProto, quantized: bool) -> None:
    """Add LePE to the output: values to NCHW, depthwise convolution, back to NHWC.

    The number of groups is the only thing of the convolution that an attribute must give; ``SAME_UPPER`` pads an odd
    kernel alike on all sides. In a body for INT8 input qkv is FLOAT by now, and the weights are not.
    """
    source, result = function.input[0], function.output[0]
    weight, bias = "lepe_weight", "lepe_bias"
    body = [helper.make_node("Constant", [], [name], value_ints=value) for name, value in _LEPE_CONSTANTS.items()]
    for name in ("qk_dim", "dim", "lepe_kernel"):
        body += [
            _attribute_value(name, f"lepe_{name}_scalar"),
            helper.make_node("Reshape", [f"lepe_{name}_scalar", "lepe_one"], [f"lepe_{name}"]),
        ]
    if quantized:
        body += [helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in (weight, bias)]
        weight, bias = f"{weight}_float", f"{bias}_float"
    convolution = helper.make_node(
        "Conv", ["lepe_value", "lepe_kernels", bias], ["lepe_encoded"], auto_pad="SAME_UPPER"
    )
    convolution.attribute.append(_ref("group", onnx.AttributeProto.INT, "dim"))
    body += [
        helper.make_node("Transpose", [weight], ["lepe_channels_first"], perm=[2, 0, 1]),
        helper.make_node(
            "Concat", ["lepe_dim", "lepe_one", "lepe_lepe_kernel", "lepe_lepe_kernel"], ["lepe_shape"], axis=0
        ),
        helper.make_node("Reshape", ["lepe_channels_first", "lepe_shape"], ["lepe_kernels"]),
        helper.make_node("Add", ["lepe_qk_dim", "lepe_qk_dim"], ["lepe_start"]),
        helper.make_node("Slice", [source, "lepe_start", "lepe_last", "lepe_axis"], ["lepe_value_image"]),
        helper.make_node("Transpose", ["lepe_value_image"], ["lepe_value"], perm=[0, 3, 1, 2]),
        convolution,
        helper.make_node("Transpose", ["lepe_encoded"], ["lepe_image"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", [result, "lepe_image"], [f"{result}_with_lepe"]),
    ]
    function.node.extend(body)
    function.input.extend(["lepe_weight", "lepe_bias"])
    function.output[0] = f"{result}_with_lepe"
    function.attribute.extend(["lepe_kernel", "dim"])


_END = 9223372036854775807
_DEQUANTIZE_CONSTANTS = {"dq_zero": [0], "dq_one": [1], "dq_axis": [3], "dq_last": [_END]}
_LEPE_CONSTANTS = {"lepe_one": [1], "lepe_axis": [3], "lepe_last": [_END]}


def _attribute_value(attribute: str, output: str) -> onnx.NodeProto:
    """A Constant whose value is the function's integer attribute of that name."""
    constant = helper.make_node("Constant", [], [output])
    constant.attribute.append(_ref("value_int", onnx.AttributeProto.INT, attribute))
    return constant


def _ref(name: str, kind: onnx.AttributeProto.AttributeType, function_attribute: str) -> onnx.AttributeProto:
    """A node attribute whose value is the function's attribute of that name."""
    return onnx.AttributeProto(name=name, type=kind, ref_attr_name=function_attribute)
