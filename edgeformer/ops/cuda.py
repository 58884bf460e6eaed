"""The fused CUDA kernels from Python, without TensorRT: ``edgeformer::BiLevelRoutingAttention`` on device memory.

Arrays may come from torch, CuPy, Numba, pycuda, JAX or anything else with ``__cuda_array_interface__`` or DLPack; a
bare address is wrapped in a `Buffer`. Nothing here imports torch or CUDA, synchronizes, or copies: with outputs and
workspace given, a call enqueues its kernels and returns, and can be captured into a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import TensorProto

from edgeformer.errors import InputError
from edgeformer.ops import library as _library
from edgeformer.ops.bi_level_routing_attention import Attributes
from edgeformer.ops.library import Library, Variant, default_library
from edgeformer.ops.memory import Buffer, bfloat16, is_torch, memory_of, stream_handle
from edgeformer.ops.operands import (
    allocate,
    allocate_workspace,
    check_memory,
    check_overlap,
    device_of,
    given,
    require_no_gradient,
    require_shape_and_type,
)

__all__ = [
    "Buffer",
    "Device",
    "Plan",
    "WorkspaceLayout",
    "bi_level_routing_attention",
    "output_dtype",
    "plan",
    "routing",
    "workspace_layout",
]

VariantName = Literal["plain", "gather", "resident"]

# EdgeformerType of plugins/common/c_types.h.
_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, bfloat16: 2, np.dtype(np.int8): 3}
_OUTPUT_TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
}


@dataclass(frozen=True)
class Device:
    """A GPU, as far as the choice of kernels depends on it.

    Attributes:
        compute_capability: times ten: 87 for Orin.
        max_shared_bytes: shared memory that one block can have, after opting in.
        multiprocessors: number of multiprocessors.
    """

    compute_capability: int
    max_shared_bytes: int
    multiprocessors: int


@dataclass(frozen=True)
class Plan:
    """How the attention kernel runs.

    Attributes:
        variant: the variant that runs.
        variants: all variants that can run, best first by the library's table.
        head_dim: channels of a head in shared memory, padded; 0 for "plain".
        warps: warps per block.
        heads: heads per block.
        stages: "gather": buffers of 64 keys; 0: all keys of the region at once.
        splits: "resident": blocks that share the queries of one head of an image.
        shared_bytes: shared memory per block.
        blocks: blocks of the launch.
    """

    variant: VariantName
    variants: tuple[VariantName, ...]
    head_dim: int
    warps: int
    heads: int
    stages: int
    splits: int
    shared_bytes: int
    blocks: int


@dataclass(frozen=True)
class WorkspaceLayout:
    """What the kernels keep between their launches.

    Attributes:
        bytes: size of the whole workspace.
        alignment: alignment of its address, bytes.
        means_offset: where the mean query and mean key of each region start, bytes.
        means_shape: ``[N, regions ** 2, 2 * qk_dim]``, float32; for an INT8 input these are sums of the integers.
        routing_offset: where the regions that each region attends to start, bytes.
        routing_shape: ``[N, regions ** 2, topk]``, int32, best first.
    """

    bytes: int
    alignment: int
    means_offset: int
    means_shape: tuple[int, int, int]
    routing_offset: int
    routing_shape: tuple[int, int, int]


def bi_level_routing_attention(
    qkv: Any,
    attributes: Attributes,
    *,
    lepe_weight: Any = None,
    lepe_bias: Any = None,
    out: Any = None,
    workspace: Any = None,
    stream: Any = None,
    variant: VariantName | None = None,
    programmatic_launch: bool = False,
    library: Library | None = None,
) -> Any:
    """Enqueue the op on device memory.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]``; float32, float16 or bfloat16, or int8 with the attributes' steps. Dense,
            its address a multiple of 16 bytes.
        attributes: the op's attributes.
        lepe_weight: ``[lepe_kernel, lepe_kernel, dim]`` of the output's type, where the attributes have LePE.
        lepe_bias: ``[dim]`` of the output's type, likewise.
        out: ``[N, H, W, dim]`` of the type that `output_dtype` says; None allocates it with torch, CuPy or NumPy, as
            ``qkv`` is. An integer is taken as an address.
        workspace: at least `workspace_layout` bytes, in use until the stream has passed this call; None allocates it.
            An integer is taken as an address.
        stream: a CUDA stream handle as an integer, or a stream object of torch, CuPy or pycuda. None: torch's or
            CuPy's current stream where ``qkv`` is theirs, else CUDA's default stream.
        variant: the attention kernel to run; None takes the best by the library's table.
        programmatic_launch: let a kernel start before the one before it has ended (SM 9.0 and newer).
        library: the plugin library; None takes the one of this installation.

    Returns:
        ``out``.

    Raises:
        InputError: the kernels do not take an array, a shape, a type or the variant; the message says what they take.
        EnvironmentFault: there is no plugin library or no CUDA device, or CUDA reports an error.
    """
    library = library or default_library()
    source = memory_of(qkv, "qkv")
    require_no_gradient(qkv, lepe_weight, lepe_bias)
    problem = _problem(
        source.shape,
        source.dtype,
        attributes,
        variant=variant,
        programmatic_launch=programmatic_launch,
    )
    shape, dtype = (*source.shape[:3], problem.dim), output_dtype(source.dtype, attributes)
    layout = library.workspace(problem)
    with device_of(qkv):
        if out is None:
            out = allocate(qkv, shape, dtype, "out")
        if workspace is None:
            workspace = allocate_workspace(qkv, layout.bytes, layout.alignment)
        result = given(out, "out", shape, dtype)
        scratch = given(workspace, "workspace", (layout.bytes,), np.dtype(np.uint8))
        operands = [source, result, scratch]
        addresses = {"lepe_weight": 0, "lepe_bias": 0}
        side = problem.lepe_kernel
        for name, array, expected in (
            ("lepe_weight", lepe_weight, (side, side, problem.dim)),
            ("lepe_bias", lepe_bias, (problem.dim,)),
        ):
            if attributes.lepe != (array is not None):
                raise InputError(
                    "EF904",
                    f"the attributes have lepe_kernel={attributes.lepe_kernel}, and {name} is "
                    f"{'missing' if attributes.lepe else 'given'}: give lepe_kernel, dim, lepe_weight and lepe_bias, "
                    "or none of them",
                )
            if array is not None:
                operand = memory_of(array, name)
                require_shape_and_type(operand, expected, dtype)
                addresses[name] = operand.address
                operands.append(operand)
        if math.prod(source.shape):
            check_memory(operands, library, layout.alignment)
            check_overlap(operands)
        if scratch.nbytes < layout.bytes:
            raise InputError(
                "EF907",
                f"workspace has {scratch.nbytes} bytes; this call needs {layout.bytes} (workspace_layout)",
            )
        library.run(
            problem,
            qkv=source.address,
            output=result.address,
            workspace=scratch.address,
            workspace_bytes=scratch.nbytes,
            stream=stream_handle(stream, qkv) if library.takes_device_memory else 0,
            **addresses,
        )
    return out


def plan(
    shape: Sequence[int],
    dtype: Any,
    attributes: Attributes,
    *,
    variant: VariantName | None = None,
    device: Device | None = None,
    library: Library | None = None,
) -> Plan:
    """Which attention kernel runs, and with which block shape.

    Args:
        shape: shape of qkv, ``(N, H, W, 2 * qk_dim + dim)``.
        dtype: type of qkv, as NumPy names it.
        attributes: the op's attributes.
        variant: the kernel asked for; None: the library's choice.
        device: the GPU to plan for; None: the current one.
        library: the plugin library; None takes the one of this installation.

    Raises:
        InputError: the op or the variant does not take this.
        EnvironmentFault: there is no plugin library, or no GPU and ``device`` is None.
    """
    library = library or default_library()
    problem = _problem(tuple(shape), np.dtype(dtype), attributes, variant=variant)
    raw = library.plan(problem, None if device is None else _library.Device(**vars(device)))
    fields = ("head_dim", "warps", "heads", "stages", "splits", "shared_bytes", "blocks")
    return Plan(
        variant=_name(raw.variant),
        variants=tuple(_name(number) for number in raw.variants[: raw.variant_count]),
        **{name: int(getattr(raw, name)) for name in fields},
    )


def workspace_layout(
    shape: Sequence[int], dtype: Any, attributes: Attributes, *, library: Library | None = None
) -> WorkspaceLayout:
    """How much workspace a call needs, and where the routing lies in it; needs no GPU.

    Args:
        shape: shape of qkv, ``(N, H, W, 2 * qk_dim + dim)``.
        dtype: type of qkv, as NumPy names it.
        attributes: the op's attributes.
        library: the plugin library; None takes the one of this installation.

    Raises:
        InputError: the op does not take this shape or type.
        EnvironmentFault: there is no plugin library.
    """
    raw = (library or default_library()).workspace(_problem(tuple(shape), np.dtype(dtype), attributes))
    regions = attributes.regions**2
    return WorkspaceLayout(
        bytes=raw.bytes,
        alignment=raw.alignment,
        means_offset=raw.means_offset,
        means_shape=(shape[0], regions, 2 * attributes.qk_dim),
        routing_offset=raw.routing_offset,
        routing_shape=(shape[0], regions, attributes.topk),
    )


def routing(workspace: Any, layout: WorkspaceLayout) -> Any:
    """The regions that each region attended to, read from a workspace after a call.

    Args:
        workspace: the uint8 torch tensor, CuPy or NumPy array that the call was given.
        layout: the layout of that call.

    Returns:
        A view of ``workspace``, int32 ``[N, regions ** 2, topk]``, best region first. It is filled once the stream has
        passed the call, and the next call overwrites it.

    Raises:
        InputError: the workspace is too small, or not such an array.
    """
    start, count = layout.routing_offset, math.prod(layout.routing_shape)
    memory = memory_of(workspace, "workspace")
    if memory.dtype != np.uint8 or len(memory.shape) != 1 or memory.nbytes < layout.bytes:
        raise InputError(
            "EF907",
            f"workspace is {memory.dtype} of shape {memory.shape}; the workspace of this layout is uint8 with "
            f"{layout.bytes} bytes",
        )
    indices = workspace[start : start + 4 * count]
    if is_torch(workspace):
        import torch

        return indices.view(torch.int32).reshape(layout.routing_shape)
    if not hasattr(indices, "view"):
        raise InputError(
            "EF908",
            f"workspace is a {type(workspace).__name__}; routing reads torch, CuPy and NumPy workspaces",
        )
    return indices.view(np.int32).reshape(layout.routing_shape)


def output_dtype(dtype: Any, attributes: Attributes) -> np.dtype[Any]:
    """The type of the output for a ``qkv`` of ``dtype``.

    Raises:
        InputError: the op does not take this type, or the attributes do not go with it.
    """
    dtype = np.dtype(dtype)
    if dtype not in _TYPES:
        raise InputError("EF909", f"qkv is {dtype}; the kernels take float32, float16, bfloat16 and int8")
    if (dtype == np.int8) != attributes.quantized:
        raise InputError(
            "EF909",
            f"qkv is {dtype}; "
            + (
                "attributes with q_scale, k_scale and v_scale need int8"
                if attributes.quantized
                else "int8 needs attributes with q_scale, k_scale, v_scale and output_type"
            ),
        )
    return _OUTPUT_TYPES[attributes.output_type] if attributes.output_type is not None else dtype


def _problem(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    attributes: Attributes,
    *,
    variant: VariantName | None = None,
    programmatic_launch: bool = False,
) -> _library.Problem:
    out = output_dtype(dtype, attributes)
    attributes.check_shape(shape)
    if variant is not None and variant.upper() not in Variant.__members__:
        raise InputError(
            "EF910",
            f"variant is {variant!r}; it must be one of {', '.join(map(_name, Variant))}, or None",
        )
    return _library.Problem(
        input_type=_TYPES[dtype],
        output_type=_TYPES[out],
        batch=shape[0],
        height=shape[1],
        width=shape[2],
        num_heads=attributes.num_heads,
        regions=attributes.regions,
        topk=attributes.topk,
        qk_dim=attributes.qk_dim,
        dim=attributes.value_channels(shape[3]),
        lepe_kernel=attributes.lepe_kernel or 0,
        variant=0 if variant is None else Variant[variant.upper()],
        programmatic_launch=programmatic_launch,
        scale=attributes.scale,
        **{name: getattr(attributes, name) or 1.0 for name in ("q_scale", "k_scale", "v_scale")},
    )


def _name(variant: int) -> VariantName:
    names: dict[int, VariantName] = {1: "plain", 2: "gather", 3: "resident"}
    return names[variant]
