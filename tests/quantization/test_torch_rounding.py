from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="scripts/try_pythons does without torch")
import torch
from torch import Tensor, nn

from edgeformer.graph.qdq import dequantize, min_max_weight, representable_scale
from edgeformer.quantization.torch_rounding import InputRounding, WeightRounding, attach, is_fake_quantized
from tests.raising import raises


def layer(seed: int = 0, *, learn: bool = False) -> nn.Linear:
    torch.manual_seed(seed)
    result = nn.Linear(6, 4)
    attach(result, InputRounding(2.0, learn=learn))
    return result


def test_ties_go_to_the_even_step_and_the_ends_are_those_of_int8() -> None:
    rounding = InputRounding(127.0)
    assert rounding.scale == 1.0
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 300.0, -127.5, -128.4, -300.0])
    assert rounding(values).tolist() == [0.0, 2.0, 2.0, 0.0, -2.0, 126.0, 127.0, 127.0, -128.0, -128.0, -128.0]
    assert not math.copysign(1.0, float(rounding(torch.tensor(-0.2)))) < 0  # INT8 has no -0


@pytest.mark.parametrize("shape", [(4, 6), (8, 3, 3, 3), (5, 2, 7)])
def test_weights_are_rounded_as_the_export_rounds_them(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(shape, generator=generator) * torch.logspace(-6, 2, shape[0]).reshape(
        -1, *(1,) * (len(shape) - 1)
    )
    weight[1] = 0
    expected = dequantize(min_max_weight(weight.numpy(), 0), 0)
    assert WeightRounding()(weight).numpy().tobytes() == (expected + np.float32(0)).tobytes()


def test_the_gradient_passes_inside_the_range_and_stops_outside() -> None:
    rounding = InputRounding(1.0)
    values = torch.tensor([0.3, -0.99, 1.5, -1.5], requires_grad=True)
    rounding(values).sum().backward()
    assert present_gradient(values).tolist() == [1.0, 1.0, 0.0, 0.0]
    weight = torch.randn(3, 5, requires_grad=True)
    (WeightRounding()(weight) * torch.arange(15.0).reshape(3, 5)).sum().backward()
    assert torch.equal(present_gradient(weight), torch.arange(15.0).reshape(3, 5))


def present_gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def test_a_learnt_scale_has_the_gradient_of_lsq() -> None:
    rounding = InputRounding(127.0, learn=True)
    assert rounding.change is not None
    # In steps of 1: the error of rounding where it is inside, the end where it is clipped.
    values = torch.tensor([0.3, 1.75, 200.0, -300.0])
    rounding(values).sum().backward()
    expected = (0 - 0.3) + (2 - 1.75) + 127 - 128
    assert present_gradient(rounding.change) == pytest.approx(expected / math.sqrt(4 * 127), rel=1e-4)


def test_a_learnt_scale_stays_one_that_the_graph_can_have() -> None:
    rounding = InputRounding(3.0, learn=True)
    assert rounding.change is not None
    start = float(rounding.scale)
    assert rounding.amax == start * 127
    values = torch.linspace(-12, 12, 400)  # four times the range: a wider one is better
    optimizer = torch.optim.Adam(rounding.parameters(), lr=0.05)
    errors = []
    for _ in range(60):
        loss = (rounding(values) - values).square().mean()
        errors.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert errors[-1] < errors[0] / 20
    step = np.float32(rounding.amax / 127)
    assert step == representable_scale(step)
    assert 2 < rounding.amax / 3.0 < 6


def test_sixteen_bits_under_autocast_are_rounded_in_float32() -> None:
    one = layer()
    values = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        result = one(values)
    assert result.dtype == torch.bfloat16
    rounding = one.input_rounding
    assert isinstance(rounding, InputRounding)
    half = values.half()
    assert torch.equal(rounding(half), rounding(half.float()).half())


def test_other_types_are_refused() -> None:
    with raises("EF556", "float64", "autocast"):
        layer().double()(torch.randn(2, 6, dtype=torch.float64))


def test_a_replica_of_data_parallel_uses_its_own_scale_and_weight() -> None:
    model = nn.Sequential(layer(0), nn.ReLU())
    # What torch.nn.parallel.replicate does for each device, on the CPU: copies of the modules without their __init__.
    modules = list(model.modules())
    replicas: list[Any] = [module._replicate_for_data_parallel() for module in modules]  # type: ignore[no-untyped-call]
    for module, replica in zip(modules, replicas, strict=True):
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else replicas[modules.index(child)]
        for name, parameter in module._parameters.items():
            setattr(replica, name, None if parameter is None else 2 * parameter.detach())
        for name, buffer in module._buffers.items():
            replica._buffers[name] = None if buffer is None else 2 * buffer
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in [*doubled.parameters(), *doubled.buffers()]:
            tensor.mul_(2)
        assert torch.equal(replicas[0](values), doubled(values))
        assert not torch.equal(replicas[0](values), model(values))


def test_a_weight_can_be_assigned() -> None:
    one = layer()
    new = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        one.weight = new
        assert torch.equal(one.weight, WeightRounding()(new))


def test_what_rounds_is_told_from_what_does_not() -> None:
    assert is_fake_quantized(nn.Sequential(layer()))
    assert not is_fake_quantized(nn.Sequential(nn.Linear(6, 4)))
