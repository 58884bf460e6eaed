"""Rounding to INT8 and back inside a PyTorch network, bit for bit as QuantizeLinear and DequantizeLinear do it.

Imported when a network is fake-quantized, and not before: it needs torch.

For gradients a rounding does not exist (the straight-through estimator): what lies inside the range passes the gradient
on, what is clipped does not. A scale that is learnt has the gradient of LSQ (Esser et al., arXiv 1902.08153, section
2.1), along the logarithm of the scale, so that a step of an optimizer changes it by a share of itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.prepare import prepared
from edgeformer.graph.qdq import (
    QMAX,
    LayerSite,
    QuantizedWeight,
    insert_qdq,
    layer_site,
    min_max_weight,
    representable_scale,
)
from edgeformer.graph.trained_qdq import mark_trained
from edgeformer.quantization.module_map import OPERATORS, node_modules

__all__ = ["InputRounding", "WeightRounding", "attach", "export_fake_quantized", "is_fake_quantized"]

_INPUT = "input_rounding"
_WEIGHT = "weight"


class _RoundInput(torch.autograd.Function):
    """``DequantizeLinear(QuantizeLinear(values, scale), scale)`` of an activation, in float32."""

    @staticmethod
    def forward(context: Any, values: Tensor, scale: Tensor) -> Tensor:
        steps = values / scale  # QuantizeLinear divides; a product with 1 / scale rounds otherwise
        # INT8 knows no -0.
        rounded = steps.round().clamp_(-QMAX - 1, QMAX).add_(0.0)
        inside = (steps >= -QMAX - 1) & (steps <= QMAX)
        change = None
        if context.needs_input_grad[1]:
            change = rounded - torch.where(inside, steps, torch.zeros_like(steps))
        context.save_for_backward(inside, change)
        return rounded * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *gradients: Any) -> tuple[Tensor, Tensor | None]:
        (gradient,) = gradients
        inside, change = context.saved_tensors
        of_scale = None if change is None else (gradient * change).sum() / (change.numel() * QMAX) ** 0.5
        return gradient * inside, of_scale


class _RoundWeight(torch.autograd.Function):
    """``DequantizeLinear`` of an INT8 weight, in float32: nothing is clipped, since the scale follows the weight."""

    @staticmethod
    def forward(_: Any, weight: Tensor, scale: Tensor) -> Tensor:
        # In float64, as quantize_array does.
        steps = (weight.double() / scale.double()).round_().clamp_(-QMAX, QMAX).add_(0.0)
        return steps.to(weight.dtype) * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0], None


class _LearntScale(torch.autograd.Function):
    """The scale that Q/DQ can have nearest above ``scale * exp(change)``; for gradients without that rounding."""

    @staticmethod
    def forward(context: Any, scale: Tensor, change: Tensor) -> Tensor:
        found = _on(representable_scale((scale * change.exp()).detach().cpu().numpy()), scale)
        context.save_for_backward(found)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *gradients: Any) -> tuple[None, Tensor]:
        (found,) = context.saved_tensors
        return None, gradients[0] * found


def _on(array: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)


def _check_float32(tensor: Tensor, what: str) -> None:
    if tensor.dtype != torch.float32:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(
            "EF556",
            f"{what} of the fake-quantized model is {kind}, and rounding is defined in float32: give .float(), and "
            "train with torch.autocast where 16 bits are wanted",
        )


class InputRounding(nn.Module):
    """Rounds the activation that one or more layers read: symmetric, one scale, clipped to -128 .. 127 steps.

    Under ``torch.autocast`` the rounding is done in float32, and the result has the activation's type.

    Attributes:
        scale: float32 ``[]``, the step, which FP16 holds exactly (`representable_scale`).
        change: float32 ``[]``, where the scale is learnt: the natural logarithm of the factor on ``scale``; else None.
    """

    def __init__(self, amax: float, *, learn: bool = False) -> None:
        """Take the magnitude that becomes 127."""
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", torch.from_numpy(representable_scale(amax / QMAX)))
        self.change = nn.Parameter(torch.zeros(())) if learn else None

    def edgeformer_export(self, model: nn.Module, export: Callable[[nn.Module], onnx.ModelProto]) -> onnx.ModelProto:
        """How a model with such layers is exported; `edgeformer.export.export_onnx` asks for it."""
        return export_fake_quantized(model, export)

    @property
    def amax(self) -> float:
        """The magnitude that becomes 127."""
        return float(self._step().detach()) * QMAX

    def forward(self, values: Tensor) -> Tensor:
        """Float, any shape, to the same.

        Raises:
            InputError: the module was converted to another type than float32.
        """
        _check_float32(self.scale, f"the scale of a layer's input ({list(values.shape)})")
        rounded: Tensor = _RoundInput.apply(values.float(), self._step())  # type: ignore[no-untyped-call]
        return rounded.to(values.dtype)

    def _step(self) -> Tensor:
        if self.change is None:
            return self.scale
        step: Tensor = _LearntScale.apply(self.scale, self.change)  # type: ignore[no-untyped-call]
        return step


class WeightRounding(nn.Module):
    """Rounds a weight: symmetric, one scale for each output channel, the channel's largest magnitude at 127.

    A parametrization of `torch.nn.utils.parametrize`: the scales follow the weight while it is trained.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Float32 ``[output channels, ...]`` to the same.

        Raises:
            InputError: the module was converted to another type than float32.
        """
        _check_float32(weight, f"a weight {list(weight.shape)}")
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        scale = _on(representable_scale(largest.cpu().numpy() / QMAX), weight)
        rounded: Tensor = _RoundWeight.apply(weight, scale)  # type: ignore[no-untyped-call]
        return rounded

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is kept of a weight that is assigned: the weight."""
        return weight


def _round_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    # The rounding is looked up at the module that is called, so that copies and replicas use their own.
    rounding: InputRounding = getattr(module, _INPUT)
    if args:
        return (rounding(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "input": rounding(kwargs["input"])}


def attach(layer: nn.Module, rounding: InputRounding) -> None:
    """Let a Linear or a convolution round its input with ``rounding`` and its weight with scales of its own."""
    layer.add_module(_INPUT, rounding)
    layer.register_forward_pre_hook(_round_input, with_kwargs=True)
    parametrize.register_parametrization(layer, _WEIGHT, WeightRounding())


def _detach(layer: nn.Module) -> InputRounding:
    """Undo `attach`; the weight is the one behind the rounding, not the rounded one.

    `torch.nn.utils.parametrize.remove_parametrizations` is no way: it edits the module's class, which a deep copy
    shares with its original.
    """
    rounding: InputRounding = getattr(layer, _INPUT)
    delattr(layer, _INPUT)
    for key in [key for key, hook in layer._forward_pre_hooks.items() if hook is _round_input]:
        del layer._forward_pre_hooks[key]
        layer._forward_pre_hooks_with_kwargs.pop(key, None)
    parametrizations: Any = layer.parametrizations
    chain = parametrizations[_WEIGHT]
    if len(parametrizations) == len(chain) == 1:
        delattr(layer, "parametrizations")
        layer.__class__ = type(layer).__bases__[0]  # what register_parametrization derived a class from
        layer.register_parameter(_WEIGHT, chain.original)
    else:  # the model has parametrizations of its own, such as weight_norm
        position = next(position for position, one in enumerate(chain) if isinstance(one, WeightRounding))
        chain[position] = nn.Identity()
    return rounding


def is_fake_quantized(model: nn.Module) -> bool:
    """Whether a part of the model rounds already."""
    return any(isinstance(module, InputRounding) for module in model.modules())


def export_fake_quantized(model: nn.Module, export: Callable[[nn.Module], onnx.ModelProto]) -> onnx.ModelProto:
    """The graph of a fake-quantized model, with the Q/DQ pairs that `insert_qdq` writes.

    Args:
        model: it, or a module that holds it; unchanged.
        export: gives the graph of a module in floating point.

    Raises:
        InputError: the model is in training mode, or a layer is not found in its graph.
    """
    if model.training:
        raise InputError(
            "EF559",
            "the fake-quantized model is in training mode, in which dropout and the like change what it computes: call "
            ".eval(), measure it, then export it",
        )
    plain = copy.deepcopy(model)
    layers = [module for module in plain.modules() if isinstance(getattr(module, _INPUT, None), InputRounding)]
    amax = {layer: _detach(layer).amax for layer in layers}
    graph = prepared(export(plain))
    index = GraphIndex(graph)
    sites: list[LayerSite] = []
    ranges: dict[str, float] = {}
    weights: dict[str, QuantizedWeight] = {}
    found = set()
    for node, layer in node_modules(index, plain):
        site = layer_site(index, node) if node.op_type in OPERATORS and layer in amax else None
        if isinstance(site, LayerSite):
            sites.append(site)
            ranges[site.activation] = amax[layer]
            weights[site.output] = _int8_weight(layer, site.axis)
            found.add(layer)
    missing = [name for name, module in plain.named_modules() if module in amax and module not in found]
    if missing:
        raise InputError(
            "EF557",
            f"{len(missing)} fake-quantized layers are not in the graph that this model is exported as: "
            f"{', '.join(missing[:5])}. The model runs other layers than when it was fake-quantized: fake-quantize "
            "it as it is exported",
        )
    result = insert_qdq(graph, sites, ranges, weights=weights, index=index)
    mark_trained(result)
    return result


def _int8_weight(layer: nn.Module, axis: int) -> QuantizedWeight:
    """The INT8 weight of a layer without its rounding, with the output channels at ``axis``.

    It comes from the module, since exporters compute what a parametrization makes of a weight in their own way.
    """
    weight: Any = layer.weight
    found = min_max_weight(weight.detach().cpu().numpy(), 0)
    return found if axis == 0 else QuantizedWeight(np.ascontiguousarray(found.values.T), found.scales)
