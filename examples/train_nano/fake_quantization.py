"""INT8 as edgeformer's default policy places it, fake-quantized in PyTorch with a straight-through gradient.

Inputs and weights of every Linear but the head, and of the stem's and the downsampling convolutions: symmetric, 8 bits,
activations per tensor, weights per output channel. Everything else stays as it is. It serves training and a first look;
what is deployed is quantized, and judged, on the ONNX graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["fake_quantized", "input_ranges", "quantized_layers", "signal_to_noise"]

_LEVELS = 127


def quantized_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that the default INT8 policy quantizes: every Linear but ``head``, every dense convolution."""
    return {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and name != "head") or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }


def _quantize(x: Tensor, largest: Tensor) -> Tensor:
    """Round ``x`` to 255 levels within +-``largest``; for gradients the rounding does not exist."""
    step = largest.clamp(min=1e-8) / _LEVELS
    levels = (x / step).clamp(-_LEVELS, _LEVELS)
    return (levels + (levels.round() - levels).detach()) * step


def _forward(layer: nn.Linear | nn.Conv2d, largest: float | None) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        x = _quantize(x, x.abs().amax() if largest is None else x.new_tensor(largest))
        channel_axes = tuple(range(1, layer.weight.ndim))
        weight = _quantize(layer.weight, layer.weight.abs().amax(dim=channel_axes, keepdim=True))
        if isinstance(layer, nn.Linear):
            return functional.linear(x, weight, layer.bias)
        return functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    return forward


@contextmanager
def fake_quantized(
    model: nn.Module, ranges: Mapping[str, float] | None = None, *, only: Callable[[str], bool] = lambda name: True
) -> Iterator[None]:
    """Within the ``with`` block, ``model`` computes with INT8 inputs and weights in its quantized layers.

    Args:
        model: changed only for the duration of the block.
        ranges: largest magnitude of each layer's input, by layer name; None takes each batch's own.
        only: which of the quantized layers take part.
    """
    layers = {name: layer for name, layer in quantized_layers(model).items() if only(name)}
    for name, layer in layers.items():
        # An instance attribute hides the class's method; deleting it brings that back.
        setattr(layer, "forward", _forward(layer, None if ranges is None else ranges[name]))  # noqa: B010  mypy
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


@torch.no_grad()
def input_ranges(model: nn.Module, batches: Iterator[Tensor]) -> dict[str, float]:
    """The largest magnitude that each quantized layer's input reaches over ``batches`` (``[N, 3, H, W]`` float)."""
    ranges: dict[str, float] = {}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ranges[name] = max(ranges.get(name, 0.0), float(inputs[0].abs().max()))

        return hook

    handles = [layer.register_forward_pre_hook(observe(name)) for name, layer in quantized_layers(model).items()]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return ranges


def signal_to_noise(reference: Tensor, other: Tensor) -> float:
    """``10 log10(sum reference^2 / sum (other - reference)^2)`` in dB, over all elements of both."""
    return float(10 * torch.log10(reference.square().sum() / (other - reference).square().sum()))
