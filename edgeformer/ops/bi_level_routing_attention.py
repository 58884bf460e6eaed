"""``edgeformer::BiLevelRoutingAttention``, version 1: the single source of truth of the op.

Bi-level routing attention (BRA; BiFormer, Zhu et al., CVPR 2023, arXiv 2303.08810) splits a feature map into
``regions x regions`` regions, lets every region pick the ``topk`` regions whose mean key answers its mean query best,
and attends from each of its queries to all tokens of the picked regions.

The op takes the output of the qkv projection in image layout and gives the attention output before the output
projection:

* input ``qkv``: ``[N, H, W, 2 * qk_dim + dim]``, channels in the order q, k, v; H and W are multiples of ``regions``;
* output: ``[N, H, W, dim]``;
* FLOAT, FLOAT16 or BFLOAT16 in and the same type out; or INT8 in (``x_real = x_scale * x_int8`` with one scale each
  for q, k and v) and ``output_type`` out.

With the attribute ``lepe_kernel`` the op adds LePE (locally enhanced positional encoding) to its output, a depthwise
convolution of v over the whole image, zero padded at its border, plus a bias. Two more inputs, of the output's type:

* ``lepe_weight``: ``[lepe_kernel, lepe_kernel, dim]``, channels last;
* ``lepe_bias``: ``[dim]``.

Whatever the input type, region means, routing logits, softmax and all accumulations are FP32: near-ties between
regions flip otherwise. Regions with equal routing logits are taken lowest index first, as ONNX TopK defines it. The
reference and the kernels compare the logits without ``scale`` and quantization steps, which change no order: those of
an INT8 input are then integers, and equal ones are equal. LePE of an INT8 input is that of the dequantized v.

This module has three parts: the attributes with their rules (`Attributes`), the op as an ONNX function in standard ops
(`function_proto`), which every runtime without the plugin executes, and the slow, obvious float64 reference
(`reference`), the oracle of all tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgeformer.errors import InputError
from edgeformer.ops.op_name import DOMAIN, OP_TYPE, OP_VERSION

__all__ = [
    "DOMAIN",
    "FUNCTION_OPSET",
    "MAX_LEPE_KERNEL",
    "OP_TYPE",
    "OP_VERSION",
    "QUANTIZATION_SCALES",
    "Attributes",
    "function_proto",
    "is_op",
    "reference",
    "reference_routing",
    "with_function",
    "without_function",
]

# The lowest opset with ReduceMean's axes as an input; the body uses nothing newer, so any later importer takes it.
FUNCTION_OPSET = 18
# The largest side of LePE's convolution that the kernels take; released models have 5.
MAX_LEPE_KERNEL = 7
# Attributes that only a node with INT8 input has.
QUANTIZATION_SCALES = ("q_scale", "k_scale", "v_scale")

_OUTPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Attributes:
    """The attributes of one op node.

    Attributes:
        num_heads: number of attention heads; divides ``qk_dim`` and the value width ``dim``.
        regions: regions per side of the feature map (the reference implementation's ``n_win``).
        topk: regions that each region attends to, 1 <= topk <= regions ** 2.
        qk_dim: channels of the queries, and of the keys. The rest of the input's channels are values.
        scale: factor on routing logits and attention logits alike; ``qk_dim ** -0.5`` in the released models.
        q_scale: quantization step of an INT8 input's queries; ``None`` for a float input.
        k_scale: the same for the keys.
        v_scale: the same for the values.
        output_type: type of the output for an INT8 input, ``TensorProto.FLOAT16`` or ``TensorProto.FLOAT``; ``None``
            for a float input, whose output has the input's type.
        lepe_kernel: side of LePE's convolution, odd and at most `MAX_LEPE_KERNEL`; ``None`` for no LePE.
        dim: channels of the values; set with ``lepe_kernel`` and only then, because an ONNX Conv must be told its
            groups.

    Raises:
        InputError: a value is out of range; the message lists every one.
    """

    num_heads: int
    regions: int
    topk: int
    qk_dim: int
    scale: float
    q_scale: float | None = None
    k_scale: float | None = None
    v_scale: float | None = None
    output_type: int | None = None
    lepe_kernel: int | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        faults = [
            f"{name}={getattr(self, name)}; it must be at least 1"
            for name in ("num_heads", "regions", "topk", "qk_dim")
            if getattr(self, name) < 1
        ]
        if not faults:
            if self.topk > self.regions**2:
                faults.append(f"topk={self.topk}; at most regions ** 2 = {self.regions**2} regions exist")
            if self.qk_dim % self.num_heads:
                faults.append(f"qk_dim={self.qk_dim}; it must be a multiple of num_heads={self.num_heads}")
        if not (np.isfinite(self.scale) and self.scale > 0):
            faults.append(f"scale={self.scale}; it must be positive and finite")
        steps = [getattr(self, name) for name in QUANTIZATION_SCALES]
        if any(step is not None for step in steps):
            faults += [
                f"{name}={step}; an INT8 input needs all of {', '.join(QUANTIZATION_SCALES)}, positive and finite"
                for name, step in zip(QUANTIZATION_SCALES, steps, strict=True)
                if step is None or not (np.isfinite(step) and step > 0)
            ]
            if self.output_type not in _OUTPUT_TYPES:
                faults.append(f"output_type={self.output_type}; an INT8 input needs 1 (FLOAT) or 10 (FLOAT16)")
        elif self.output_type is not None:
            faults.append(f"output_type={self.output_type}; only an INT8 input takes it, a float one keeps its type")
        faults += self._lepe_faults()
        if faults:
            raise InputError("EF901", f"{DOMAIN}::{OP_TYPE}: " + "; ".join(faults))

    def _lepe_faults(self) -> list[str]:
        if self.lepe_kernel is None:
            return [] if self.dim is None else [f"dim={self.dim}; only a node with LePE has it: give lepe_kernel, too"]
        faults = []
        if self.lepe_kernel not in range(1, MAX_LEPE_KERNEL + 1, 2):
            faults.append(f"lepe_kernel={self.lepe_kernel}; it must be odd, at least 1 and at most {MAX_LEPE_KERNEL}")
        if self.dim is None or self.dim < 1 or (self.num_heads >= 1 and self.dim % self.num_heads):
            faults.append(f"dim={self.dim}; with lepe_kernel it must be a multiple of num_heads={self.num_heads}")
        return faults

    @property
    def quantized(self) -> bool:
        """Whether the node's input is INT8."""
        return self.q_scale is not None

    @property
    def lepe(self) -> bool:
        """Whether the node adds LePE, and so has inputs ``lepe_weight`` and ``lepe_bias``."""
        return self.lepe_kernel is not None

    @classmethod
    def from_node(cls, node: onnx.NodeProto) -> Attributes:
        """Read the attributes of an ONNX node.

        Raises:
            InputError: the node is another op; an attribute is unknown, missing, of a wrong type or out of range; or
                the number of inputs does not go with the attributes.
        """
        if not is_op(node):
            raise InputError("EF902", f"node {node.name!r} is {node.domain}::{node.op_type}, not {DOMAIN}::{OP_TYPE}")
        integers = ("num_heads", "regions", "topk", "qk_dim", "output_type", "lepe_kernel", "dim")
        kinds = dict.fromkeys(integers, onnx.AttributeProto.INT)
        kinds |= dict.fromkeys(("scale", *QUANTIZATION_SCALES), onnx.AttributeProto.FLOAT)
        values: dict[str, Any] = {}
        faults = []
        for attribute in node.attribute:
            if attribute.name not in kinds:
                faults.append(f"unknown attribute {attribute.name!r}")
            elif attribute.type != kinds[attribute.name]:
                faults.append(f"attribute {attribute.name!r} must be {_type_name(kinds[attribute.name])}")
            else:
                values[attribute.name] = helper.get_attribute_value(attribute)
        required = ("num_heads", "regions", "topk", "qk_dim", "scale")
        given = {attribute.name for attribute in node.attribute}
        faults += [f"attribute {name!r} is missing" for name in required if name not in given]
        if faults:
            raise InputError("EF902", f"node {node.name!r}: " + "; ".join(faults))
        attributes = cls(**values)
        inputs = [name for name in node.input if name]
        if len(inputs) != (3 if attributes.lepe else 1):
            wanted = "qkv, lepe_weight and lepe_bias" if attributes.lepe else "qkv alone, because it has no lepe_kernel"
            raise InputError("EF902", f"node {node.name!r}: got {len(inputs)} inputs; it takes {wanted}")
        return attributes

    def to_dict(self) -> dict[str, Any]:
        """The attributes that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def make_node(
        self, qkv: str, output: str, name: str, *, lepe_weight: str | None = None, lepe_bias: str | None = None
    ) -> onnx.NodeProto:
        """The ONNX node with these attributes.

        Args:
            qkv: tensor that it reads.
            output: tensor that it writes.
            name: the node's name.
            lepe_weight: tensor with LePE's weight; given with ``lepe_kernel`` and only then.
            lepe_bias: tensor with LePE's bias; likewise.

        Raises:
            InputError: LePE's tensors do not go with the attributes.
        """
        lepe = [given for given in (lepe_weight, lepe_bias) if given is not None]
        if len(lepe) != (2 if self.lepe else 0):
            raise InputError(
                "EF904",
                f"{DOMAIN}::{OP_TYPE}: got lepe_kernel={self.lepe_kernel}, lepe_weight={lepe_weight} and "
                f"lepe_bias={lepe_bias}: give all three, or none",
            )
        return helper.make_node(OP_TYPE, [qkv, *lepe], [output], name=name, domain=DOMAIN, **self.to_dict())

    def value_channels(self, channels: int) -> int:
        """Width of the values (and of the output) for an input of ``channels`` channels.

        Raises:
            InputError: no channels are left for the values, or their number is not a multiple of ``num_heads`` or not
                the attribute ``dim``.
        """
        dim = channels - 2 * self.qk_dim
        if dim < 1 or dim % self.num_heads:
            raise InputError(
                "EF903",
                f"{DOMAIN}::{OP_TYPE}: got {channels} channels; with qk_dim={self.qk_dim} and "
                f"num_heads={self.num_heads} they must be 2 * {self.qk_dim} plus a multiple of {self.num_heads}",
            )
        if self.dim not in (None, dim):
            raise InputError(
                "EF903",
                f"{DOMAIN}::{OP_TYPE}: got {channels} channels; with qk_dim={self.qk_dim} that leaves {dim} for the "
                f"values, and the attribute dim is {self.dim}",
            )
        return dim

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Check that the op takes a ``qkv`` of ``shape`` ``(N, H, W, channels)``.

        Raises:
            InputError: the rank is not 4, H or W is not a positive multiple of ``regions``, or the channels do not fit.
        """
        if len(shape) != 4:
            raise InputError("EF903", f"{DOMAIN}::{OP_TYPE}: got shape {shape}; the input is [N, H, W, channels]")
        for axis, size in (("H", shape[1]), ("W", shape[2])):
            if size < 1 or size % self.regions:
                raise InputError(
                    "EF903",
                    f"{DOMAIN}::{OP_TYPE}: got {axis}={size}; it must be a positive multiple of "
                    f"regions={self.regions}: choose another input size, or pad (auto_pad) before the qkv projection",
                )
        self.value_channels(shape[3])


def is_op(node: onnx.NodeProto) -> bool:
    """Whether ``node`` is an ``edgeformer::BiLevelRoutingAttention``."""
    return bool(node.domain == DOMAIN and node.op_type == OP_TYPE)


@cache
def _function_bytes(quantized: bool, lepe: bool) -> bytes:
    from edgeformer.ops import bi_level_routing_attention_body

    serialized: bytes = bi_level_routing_attention_body.build(quantized, lepe).SerializeToString()
    return serialized


def function_proto(*, quantized: bool = False, lepe: bool = False) -> onnx.FunctionProto:
    """The op as an ONNX function in standard ops at opset 18, generic in N, H, W and the channel count.

    ONNX Runtime and TensorRT without the plugin inline it. Attention MatMuls run in the input's type (runtimes
    accumulate them in FP32), everything that decides routing and the softmax in FP32.

    Args:
        quantized: the body for INT8 inputs, which are dequantized first.
        lepe: the body for nodes that add LePE.
    """
    function = onnx.FunctionProto()
    function.ParseFromString(_function_bytes(quantized, lepe))
    return function


def with_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` that carries the op's function, at the model's opset, and the import its nodes need.

    Raises:
        InputError: op nodes with INT8 and with float input, or with and without LePE, are mixed (one body cannot
            serve both), or a node's attributes are wrong.
    """
    # Overloads of a function (IR version 10) would not help: TensorRT-RTX 1.7 silently takes one of them for all nodes.
    nodes = [Attributes.from_node(node) for node in model.graph.node if is_op(node)]
    quantized, lepe = {node.quantized for node in nodes}, {node.lepe for node in nodes}
    if len(quantized) > 1:
        raise InputError(
            "EF906", f"the graph mixes {OP_TYPE} nodes with INT8 and with float input: quantize all of them or none"
        )
    if len(lepe) > 1:
        raise InputError(
            "EF906",
            f"the graph mixes {OP_TYPE} nodes with LePE and without: fuse LePE into all of them or none",
        )
    result = without_function(model)
    if DOMAIN not in {opset.domain for opset in result.opset_import}:
        result.opset_import.append(helper.make_opsetid(DOMAIN, OP_VERSION))
    function = function_proto(quantized=quantized == {True}, lepe=lepe == {True})
    # The body's ops mean the same in every later opset, but ONNX's checker and inliner want the model's version.
    imported = max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)
    function.opset_import[0].version = max(FUNCTION_OPSET, imported)
    result.functions.append(function)
    # Model-local functions came with IR version 8.
    result.ir_version = max(result.ir_version, 8)
    return result


def without_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` without the op's function, for a parser that knows the plugin but has no plugin override."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [function for function in result.functions if (function.domain, function.name) != (DOMAIN, OP_TYPE)]
    del result.functions[:]
    result.functions.extend(kept)
    return result


def reference_routing(qkv: npt.NDArray[Any], attributes: Attributes) -> npt.NDArray[np.int64]:
    """The regions that every region attends to, computed in float64.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]``, any float type, or int8 with the attributes' scales.
        attributes: the op's attributes.

    Returns:
        int64 ``[N, regions ** 2, topk]``, best region first, equal ones lowest index first, NaN logits before all
        others. Regions are numbered row by row.

    Raises:
        InputError: the shape does not fit the attributes.
    """
    # Without the scale, the quantization steps and the number of tokens: positive factors change no order, but their
    # rounding would part logits that are equal.
    query, key, _ = _regions(qkv, attributes)
    logits = query.sum(axis=2) @ key.sum(axis=2).transpose(0, 2, 1)
    # lexsort is stable and its last key comes first: NaN, then by descending logit, equal ones in index order.
    nan = np.isnan(logits)
    order = np.lexsort((np.where(nan, 0.0, -logits), ~nan), axis=-1)
    return order[..., : attributes.topk].astype(np.int64)


def reference(
    qkv: npt.NDArray[Any],
    attributes: Attributes,
    lepe_weight: npt.NDArray[Any] | None = None,
    lepe_bias: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float64]:
    """The op in plain NumPy and float64: slow, obvious, and the oracle for every other implementation.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]``, any float type, or int8 with the attributes' scales.
        attributes: the op's attributes.
        lepe_weight: ``[lepe_kernel, lepe_kernel, dim]``, any float type; given with ``lepe_kernel`` and only then.
        lepe_bias: ``[dim]``, likewise.

    Returns:
        float64 ``[N, H, W, dim]``.

    Raises:
        InputError: a shape does not fit the attributes.
    """
    query, key, value = _dequantized(_regions(qkv, attributes), attributes)
    routing = reference_routing(qkv, attributes)
    batch, regions, tokens, dim = value.shape
    heads = attributes.num_heads
    output = np.empty_like(value)
    for n in range(batch):
        for region in range(regions):
            picked = routing[n, region]
            q = query[n, region].reshape(tokens, heads, -1)
            k = key[n, picked].reshape(picked.size * tokens, heads, -1)
            v = value[n, picked].reshape(picked.size * tokens, heads, -1)
            logits = np.einsum("qhd,khd->hqk", q * attributes.scale, k)
            weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            output[n, region] = np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, dim)
    image = _image(output, qkv.shape, attributes)
    lepe = _lepe(_image(value, qkv.shape, attributes), attributes, lepe_weight, lepe_bias)
    return image if lepe is None else image + lepe


def _image(tokens: npt.NDArray[np.float64], shape: tuple[int, ...], attributes: Attributes) -> npt.NDArray[np.float64]:
    """``[N, regions ** 2, tokens, channels]`` as ``[N, H, W, channels]``; ``shape`` is that of the op's input."""
    batch, height, width, _ = shape
    side = attributes.regions
    tiles = tokens.reshape(batch, side, side, height // side, width // side, -1)
    image: npt.NDArray[np.float64] = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)
    return image


def _lepe(
    value: npt.NDArray[np.float64],
    attributes: Attributes,
    weight: npt.NDArray[Any] | None,
    bias: npt.NDArray[Any] | None,
) -> npt.NDArray[np.float64] | None:
    """LePE of the values ``[N, H, W, dim]``; ``None`` where the op has none."""
    _, height, width, dim = value.shape
    shapes = [None if given is None else given.shape for given in (weight, bias)]
    side = attributes.lepe_kernel
    wanted = [None, None] if side is None else [(side, side, dim), (dim,)]
    if shapes != wanted:
        raise InputError(
            "EF903",
            f"{DOMAIN}::{OP_TYPE}: got lepe_weight of shape {shapes[0]} and lepe_bias of shape {shapes[1]}; with "
            f"lepe_kernel={side} and dim={dim} they must be {wanted[0]} and {wanted[1]}",
        )
    if side is None or weight is None or bias is None:
        return None
    margin = side // 2
    padded = np.pad(value, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    result: npt.NDArray[np.float64] = np.broadcast_to(bias.astype(np.float64), value.shape).copy()
    for y in range(side):
        for x in range(side):
            result += padded[:, y : y + height, x : x + width] * weight[y, x].astype(np.float64)
    return result


def _regions(qkv: npt.NDArray[Any], attributes: Attributes) -> tuple[npt.NDArray[np.float64], ...]:
    """Queries, keys and values as they are, each ``[N, regions ** 2, tokens, channels]`` in float64."""
    attributes.check_shape(qkv.shape)
    batch, height, width, channels = qkv.shape
    side = attributes.regions
    tiles = qkv.astype(np.float64).reshape(batch, side, height // side, side, width // side, channels)
    tokens = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side * side, -1, channels)
    return tuple(np.split(tokens, [attributes.qk_dim, 2 * attributes.qk_dim], axis=-1))


def _dequantized(
    parts: tuple[npt.NDArray[np.float64], ...], attributes: Attributes
) -> tuple[npt.NDArray[np.float64], ...]:
    """Queries, keys and values times their quantization steps; a float input has none."""
    steps = (attributes.q_scale or 1.0, attributes.k_scale or 1.0, attributes.v_scale or 1.0)
    return tuple(part * step for part, step in zip(parts, steps, strict=True))


def _type_name(kind: int) -> str:
    return str(onnx.AttributeProto.AttributeType.Name(kind))
