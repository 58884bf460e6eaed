"""INT8 fake-quantized in PyTorch: which layers, the rounding, the gradient, and a model left as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgeformer.models import create_model
from examples.train_nano.fake_quantization import fake_quantized, input_ranges, quantized_layers, signal_to_noise


class _Net(nn.Module):
    """One layer of each kind that matters: dense and depthwise convolution, Linear, head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.linear = nn.Linear(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.conv(x)).mean(dim=(2, 3))
        y: torch.Tensor = self.head(self.linear(x))
        return y


@pytest.fixture
def net() -> _Net:
    torch.manual_seed(0)
    return _Net()


def test_layers_are_those_of_the_default_policy() -> None:
    names = quantized_layers(create_model("biformer_nano"))
    stem = {"downsample_layers.0.0", "downsample_layers.0.3"}
    between = {f"downsample_layers.{i}.0" for i in (1, 2, 3)}
    blocks = set()
    for block in ("0.0", "1.0", "2.0", "2.1"):
        blocks |= {f"stages.{block}.{layer}" for layer in ("attn.qkv.qkv", "attn.wo", "mlp.0", "mlp.3")}
    last = {f"stages.3.0.{layer}" for layer in ("attn.qkv", "attn.proj", "mlp.0", "mlp.3")}
    assert set(names) == stem | between | blocks | last


def _rounded(x: NDArray[np.float32], largest: NDArray[np.float64] | float) -> NDArray[np.float32]:
    step = np.asarray(largest, np.float32) / np.float32(127)
    rounded: NDArray[np.float32] = np.clip(np.round(x / step), -127, 127) * step
    return rounded


def test_inputs_are_rounded_per_tensor_and_weights_per_channel() -> None:
    layer = nn.Linear(3, 2, bias=False)
    model = nn.ModuleDict({"linear": layer})
    weight = np.array([[0.5, -1.0, 0.25], [10.0, 0.1, 3.0]], np.float32)
    x = np.array([[0.3, -0.7, 0.01], [0.2, 0.9, -2.0]], np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        with fake_quantized(model, {"linear": 1.0}):
            ours = layer(torch.from_numpy(x)).numpy()
        with fake_quantized(model):
            widest = layer(torch.from_numpy(x)).numpy()
    expected_weight = _rounded(weight, np.array([[1.0], [10.0]]))
    assert np.allclose(ours, _rounded(x, 1.0) @ expected_weight.T, atol=1e-6)
    assert np.allclose(widest, _rounded(x, 2.0) @ expected_weight.T, atol=1e-6)
    assert not np.allclose(ours, widest, atol=1e-2)  # the first one clipped -2 to -1


def test_convolutions_keep_stride_and_padding(net: _Net) -> None:
    x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        clean = net.conv(x)
        with fake_quantized(net):
            quantized = net.conv(x)
    assert quantized.shape == clean.shape
    # 8 bits of input and weight: each is off by at most half a step, 1/254 of the largest value.
    assert 30 < signal_to_noise(clean, quantized) < 60


def test_the_model_is_left_as_it_was(net: _Net) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    names = list(net.state_dict())
    with torch.no_grad():
        before = net(x)
        with fake_quantized(net):
            inside = net(x)
        with pytest.raises(ZeroDivisionError), fake_quantized(net):
            _ = 1 / 0
        assert torch.equal(net(x), before)
    assert not torch.equal(inside, before)
    assert list(net.state_dict()) == names


def test_only_some_layers(net: _Net) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        clean = net(x)
        with fake_quantized(net, only=lambda name: False):
            assert torch.equal(net(x), clean)
        with fake_quantized(net, only=lambda name: name == "linear"):
            linear = net(x)
        with fake_quantized(net):
            every = net(x)
    assert not torch.equal(linear, clean)
    assert not torch.equal(linear, every)


def test_gradients_pass_the_rounding(net: _Net) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    gradients = []
    for quantize in (False, True):
        net.zero_grad()
        if quantize:
            with fake_quantized(net):
                loss = net(x).square().sum()
        else:
            loss = net(x).square().sum()
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))  # type: ignore[union-attr]  # backward has filled them
    assert signal_to_noise(*gradients) > 20


def test_ranges_are_the_largest_magnitudes_over_all_batches(net: _Net) -> None:
    batches = [torch.full((1, 3, 4, 4), value) for value in (0.5, -3.0, 2.0)]
    ranges = input_ranges(net, iter(batches))
    assert set(ranges) == {"conv", "linear"}
    assert ranges["conv"] == 3.0
    with torch.no_grad():
        expected = max(net.depthwise(net.conv(b)).mean(dim=(2, 3)).abs().max().item() for b in batches)
    assert ranges["linear"] == pytest.approx(expected, rel=1e-5)
    assert not net.conv._forward_pre_hooks


def test_signal_to_noise() -> None:
    reference = torch.tensor([3.0, 4.0])
    assert signal_to_noise(reference, reference + torch.tensor([0.0, 0.5])) == pytest.approx(20.0)
    assert math.isinf(signal_to_noise(reference, reference))
