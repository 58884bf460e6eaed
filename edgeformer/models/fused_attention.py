"""``torch.ops.edgeformer.bi_level_routing_attention``: the fused CUDA kernels as a PyTorch op, forward only.

The op goes through ``torch.compile`` and ``torch.export`` as one node, takes its memory from torch's allocator,
enqueues on torch's current stream and never synchronizes, so that it can be captured into a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgeformer.errors import InputError
from edgeformer.ops import cuda
from edgeformer.ops.bi_level_routing_attention import Attributes

__all__ = ["bi_level_routing_attention", "fused_bi_level_routing_attention"]


@torch.library.custom_op("edgeformer::bi_level_routing_attention", mutates_args=())
def bi_level_routing_attention(
    qkv: Tensor,
    lepe_weight: Tensor | None,
    lepe_bias: Tensor | None,
    num_heads: int,
    regions: int,
    topk: int,
    qk_dim: int,
    scale: float,
) -> Tensor:
    """The op on a float ``qkv``; `fused_bi_level_routing_attention` is the same with keyword arguments.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]``, float32, float16 or bfloat16, on a CUDA device.
        lepe_weight: ``[k, k, dim]`` of the same type, or None.
        lepe_bias: ``[dim]`` of the same type, or None.
        num_heads: as in `Attributes`, and the four that follow.
        regions: regions per side.
        topk: regions each region attends to.
        qk_dim: channels of the queries, and of the keys.
        scale: factor on routing logits and attention logits.

    Returns:
        ``[N, H, W, dim]`` of the type of ``qkv``.

    Raises:
        InputError: the kernels cannot take this.
        EnvironmentFault: there is no plugin library or no CUDA device.
    """
    attributes = Attributes(
        num_heads=num_heads,
        regions=regions,
        topk=topk,
        qk_dim=qk_dim,
        scale=scale,
        lepe_kernel=None if lepe_weight is None else lepe_weight.shape[0],
        dim=None if lepe_weight is None else lepe_weight.shape[2],
    )
    out: Tensor = cuda.bi_level_routing_attention(
        _dense(qkv), attributes, lepe_weight=_dense(lepe_weight), lepe_bias=_dense(lepe_bias)
    )
    return out


def _dense(tensor: Tensor | None) -> Tensor | None:
    # Detached: a request for a gradient is met in _no_backward, and inference need not be under no_grad.
    return None if tensor is None else tensor.detach().contiguous()


@bi_level_routing_attention.register_fake
def _shape_of_output(
    qkv: Tensor,
    lepe_weight: Tensor | None,
    lepe_bias: Tensor | None,
    num_heads: int,
    regions: int,
    topk: int,
    qk_dim: int,
    scale: float,
) -> Tensor:
    batch, height, width, channels = qkv.shape
    return qkv.new_empty((batch, height, width, channels - 2 * qk_dim))


def _no_backward(_context: Any, *_gradients: Tensor) -> Any:
    raise InputError(
        "EF905",
        "the fused attention has no backward pass: run it under torch.no_grad() (torch.compile asks for gradients "
        'while it compiles), or train with attention="reference"',
    )


bi_level_routing_attention.register_autograd(_no_backward)


def fused_bi_level_routing_attention(
    qkv: Tensor,
    *,
    num_heads: int,
    regions: int,
    topk: int,
    qk_dim: int,
    scale: float,
    lepe_weight: Tensor | None = None,
    lepe_bias: Tensor | None = None,
) -> Tensor:
    """The op with the arguments of `edgeformer.models.attention.bi_level_routing_attention`, and LePE.

    Args:
        qkv: ``[N, H, W, 2 * qk_dim + dim]`` float; H and W are multiples of ``regions``.
        num_heads: heads of the token attention.
        regions: regions per side.
        topk: regions each region attends to.
        qk_dim: channels of q and of k.
        scale: factor on routing logits and attention logits.
        lepe_weight: ``[dim, 1, k, k]``, the weight of LePE's depthwise convolution; None: no LePE.
        lepe_bias: ``[dim]``, its bias.

    Returns:
        ``[N, H, W, dim]`` float.

    Raises:
        InputError: the kernels cannot take this.
        EnvironmentFault: there is no plugin library or no CUDA device.
    """
    if lepe_weight is not None:
        # Channels last, as the kernel reads them; under autocast the convolution's parameters are FP32, qkv is not.
        lepe_weight = lepe_weight[:, 0].permute(1, 2, 0).to(qkv.dtype).contiguous()
    if lepe_bias is not None:
        lepe_bias = lepe_bias.to(qkv.dtype)
    out: Tensor = bi_level_routing_attention(qkv, lepe_weight, lepe_bias, num_heads, regions, topk, qk_dim, scale)
    return out
