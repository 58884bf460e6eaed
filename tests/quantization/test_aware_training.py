from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="scripts/try_pythons does without torch")
import torch
from torch import Tensor, nn

from edgeformer.export import export_onnx
from edgeformer.graph.fold_batch_norm import fold_batch_norm
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.prepare import prepared
from edgeformer.graph.qdq import layer_site, representable_scale
from edgeformer.quantization import calibrate, fake_quantize, load_recipe
from edgeformer.quantization.calibration import Calibration, CalibrationKey, ChannelTransform
from edgeformer.quantization.recipe import ObserverSettings, Override, Recipe
from edgeformer.quantization.torch_rounding import InputRounding
from edgeformer.runtime import OnnxSession
from tests.present import present
from tests.quantization.conftest import ArraySamples
from tests.quantization.fake_quantized import (
    LAYERS,
    SIZE,
    Net,
    images,
    layers_of,
    network,
    restored_weight,
    rounded_input,
    same_bits,
)
from tests.raising import raises

MIN_MAX = Recipe(name="min-max", observer=ObserverSettings(kind="min_max"))


def without(*names: str) -> Recipe:
    """A recipe that leaves the weights of these modules in floating point."""
    overrides = tuple(Override(name=name, quantize=False, because="the test says so") for name in names)
    return MIN_MAX.model_copy(update={"overrides": overrides})


@pytest.fixture(scope="module")
def net() -> Net:
    return network()


@pytest.fixture(scope="module")
def trained(net: Net) -> Any:
    """The fake-quantized network after a few steps of training, with scales that are learnt; in eval mode."""
    model: Any = fake_quantize(net, MIN_MAX, samples=ArraySamples(images()), learn_scales=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for seed in range(5):
        loss = model(torch.from_numpy(images(4, seed))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def graph(trained: Any) -> onnx.ModelProto:
    return export_onnx(trained, input_size=(SIZE, SIZE))


def inputs_of(model: nn.Module, batch: Tensor) -> dict[nn.Module, list[Tensor]]:
    """What each layer that rounds is given, before its rounding, at each call."""
    seen: dict[nn.Module, list[Tensor]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(module, []).append(args[0] if args else kwargs["input"])

    layers = [module for module in model.modules() if hasattr(module, "input_rounding")]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True, prepend=True) for layer in layers]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return seen


def test_every_rounding_is_that_of_the_exported_graph_bit_for_bit(trained: Any, graph: onnx.ModelProto) -> None:
    layers = layers_of(graph, trained)
    assert len(layers) == len(LAYERS) + 1  # one is called twice
    seen = inputs_of(trained, torch.from_numpy(images(4, 9)))
    calls = dict.fromkeys(seen, 0)
    for node, module in layers:
        values = seen[module][calls[module]]
        calls[module] += 1
        rounding, weight = module.input_rounding, module.weight
        assert isinstance(rounding, InputRounding)
        assert isinstance(weight, Tensor)
        # Every call's values through each pair: also those that another layer, or another batch, would bring.
        for tensor in (values, 3 * values, values.round(), torch.arange(-300, 300) * rounding.scale / 2):
            ours = rounding(tensor).detach().numpy()
            assert same_bits(ours, rounded_input(graph, node, tensor.numpy())), node.name
        assert same_bits(weight.detach().numpy(), restored_weight(graph, node)), node.name


def test_the_whole_network_differs_by_the_order_of_sums_alone(trained: Any, graph: onnx.ModelProto) -> None:
    batch = images(8, 3)
    with torch.no_grad():
        ours = trained(torch.from_numpy(batch)).numpy()
    with OnnxSession(graph, optimization="none") as session:
        theirs = session.run({"input": batch})["logits"]
    # Where a sum's last bit decides between two steps the outputs differ by a step: far less than INT8 as such.
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_what_is_rounded_is_what_the_policy_quantizes(net: Net, trained: Any, graph: onnx.ModelProto) -> None:
    assert tuple(name for name, one in trained.named_modules() if hasattr(one, "input_rounding")) == LAYERS
    assert type(trained) is Net
    assert not any(isinstance(one, InputRounding) for one in net.modules())
    quantizers = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    # images, the input of down, that of query and key, and two for the layer that is called twice.
    assert len(quantizers) == 5
    scales = {one.name: onnx.numpy_helper.to_array(one) for one in graph.graph.initializer}
    for node in quantizers:
        scale = scales[node.input[1]]
        assert scale == representable_scale(scale)


def test_layers_that_read_one_tensor_share_one_rounding(trained: Any) -> None:
    assert trained.query.input_rounding is trained.key.input_rounding
    roundings = [one for one in trained.modules() if isinstance(one, InputRounding)]
    assert len(roundings) == 4


def test_batch_norms_are_folded_where_the_graph_folds_them(net: Net) -> None:
    model: Any = fake_quantize(net, MIN_MAX, samples=ArraySamples(images()))
    assert isinstance(model.stem_norm, nn.Identity)
    assert isinstance(model.before, nn.Identity)
    assert isinstance(model.last_norm, nn.BatchNorm2d)
    graph = fold_batch_norm(prepared(export_onnx(net, input_size=(SIZE, SIZE))))
    index = GraphIndex(graph)
    convolutions = [index.array(node.input[1]) for node in graph.graph.node if node.op_type == "Conv"]
    stem, _, down = (present(array) for array in convolutions)
    assert same_bits(stem, model.stem.parametrizations.weight.original.detach().numpy())
    assert same_bits(down, model.down.parametrizations.weight.original.detach().numpy())
    # Statistics of the norm that is left are not those of a batch, in training either.
    before = present(model.last_norm.running_mean).clone()
    model.train()
    model(torch.from_numpy(images()))
    assert torch.equal(before, present(model.last_norm.running_mean))
    loose: Any = fake_quantize(net, MIN_MAX, samples=ArraySamples(images()), freeze_batch_norm=False).train()
    loose(torch.from_numpy(images()))
    assert not torch.equal(before, loose.last_norm.running_mean)


def test_training_and_evaluation_round_alike(trained: Any) -> None:
    batch = torch.from_numpy(images())
    quiet = copy.deepcopy(trained)
    quiet.dropout.p = 0.0
    with torch.no_grad():
        assert torch.equal(quiet.train()(batch), quiet.eval()(batch))


def test_every_parameter_learns(net: Net) -> None:
    model: Any = fake_quantize(net, MIN_MAX, samples=ArraySamples(images()), learn_scales=True).train()
    model(torch.from_numpy(images())).square().sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0] == []
    scales = {name for name, _ in model.named_parameters() if name.endswith("input_rounding.change")}
    # Shared ones have one name.
    assert scales == {f"{name}.input_rounding.change" for name in LAYERS if name != "key"}


def test_the_ranges_are_the_observers(net: Net, make_samples: Callable[..., ArraySamples]) -> None:
    samples = make_samples()
    recipe = Recipe(name="percentile", observer=ObserverSettings(kind="percentile", percentile=99.0))
    given: Any = fake_quantize(net, recipe, samples=samples)
    export = export_onnx(net, input_size=(SIZE, SIZE))
    steps = dict.fromkeys(("balance", "choose_ranges", "round_weights", "correct_bias", "degrade"), False)
    calibration = calibrate(export, samples, recipe=recipe.model_copy(update=steps))
    taken = fake_quantize(net, recipe, calibration=calibration, input_size=(SIZE, SIZE))
    for one, other in zip(given.state_dict().values(), taken.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    index = GraphIndex(fold_batch_norm(prepared(export)))
    sites = [layer_site(index, node) for node in index.model.graph.node if node.op_type == "Conv"]
    stem = sites[0]
    assert not isinstance(stem, str)
    assert given.stem.input_rounding.scale == torch.from_numpy(
        representable_scale(calibration.ranges[stem.activation] / 127)
    )


def test_state_is_saved_and_loaded(net: Net, trained: Any) -> None:
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh = fake_quantize(net, MIN_MAX, samples=ArraySamples(images(seed=5)), learn_scales=True)
    batch = torch.from_numpy(images())
    with torch.no_grad():
        assert not torch.equal(fresh(batch), trained(batch))
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(fresh.eval()(batch), trained(batch))


def test_a_copy_is_apart(trained: Any) -> None:
    batch = torch.from_numpy(images())
    with torch.no_grad():
        before = trained(batch)
        twin = copy.deepcopy(trained)
        assert torch.equal(twin(batch), before)
        for module in twin.modules():
            if isinstance(module, InputRounding):
                module.scale.mul_(4)
        assert not torch.equal(twin(batch), before)
        assert torch.equal(trained(batch), before)
    assert twin.query.input_rounding is twin.key.input_rounding


def test_a_part_or_a_wrapped_model_is_exported_too(trained: Any) -> None:
    wrapped = nn.Sequential(trained, nn.Softmax(dim=1)).eval()
    graph = export_onnx(wrapped, input_size=(SIZE, SIZE))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("QuantizeLinear") == 5
    assert kinds[-1] == "Softmax"


def test_parametrizations_of_the_models_own_stay() -> None:
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(128, 8))
    given = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), normed, nn.ReLU(), nn.Linear(8, 5)).eval()
    model: Any = fake_quantize(given, MIN_MAX, samples=ArraySamples(images()))
    graph = export_onnx(model, input_size=(SIZE, SIZE))
    layers = layers_of(graph, model)
    assert [module for _, module in layers] == [model[0], model[2]]
    for node, module in layers:
        assert isinstance(module.weight, Tensor)
        assert same_bits(module.weight.detach().numpy(), restored_weight(graph, node))
    assert len(model[2].parametrizations.weight) == 2
    model[2].parametrizations.weight.original0.data.mul_(2)  # the norms
    twice: Any = fake_quantize(given, MIN_MAX, samples=ArraySamples(images()))
    assert torch.allclose(model[2].weight, 2 * twice[2].weight)


class Functional(nn.Module):
    """A Linear whose weight is no module's, and attention that calls its projection by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.mixing = nn.Parameter(torch.randn(16, 16) / 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = nn.functional.linear(x, self.mixing)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        y: Tensor = self.head(x.mean(1))
        return y


class Scaled(nn.Linear):
    """A Linear that does more than its node in the graph."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(4 * input, self.weight, self.bias)


class TestRefusals:
    def test_layers_that_are_no_modules_are_named(self) -> None:
        torch.manual_seed(0)
        model = Functional().eval()
        with raises("EF557", "3 layers", "nn.Linear", '"quantize": false'):
            fake_quantize(model, MIN_MAX, samples=ArraySamples(images()))

    def test_a_module_that_does_more_is_named(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), Scaled(128, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
        with raises("EF557", "reads up to"):
            fake_quantize(model, MIN_MAX, samples=ArraySamples(images()))

    def test_twice(self, trained: Any) -> None:
        with raises("EF555", "fake-quantized already"):
            fake_quantize(trained, MIN_MAX, samples=ArraySamples(images()))

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
    def test_another_type(self, net: Net, kind: torch.dtype) -> None:
        model = copy.deepcopy(net).to(kind)
        with raises("EF556", str(kind).removeprefix("torch."), ".float()"):
            fake_quantize(model, MIN_MAX, samples=ArraySamples(images()))

    def test_converted_afterwards(self, trained: Any) -> None:
        model = copy.deepcopy(trained).half()
        with raises("EF556", "float16", "autocast"):
            model(torch.from_numpy(images()).half())
        with raises("EF210", "float16"):
            export_onnx(model, input_size=(SIZE, SIZE))

    def test_no_samples(self, net: Net) -> None:
        with raises("EF103", "samples="):
            fake_quantize(net, MIN_MAX)

    def test_samples_that_are_none(self, net: Net) -> None:
        given: Any = images()
        with raises("EF103", "ndarray", "open_samples"):
            fake_quantize(net, MIN_MAX, samples=given)
        flat: Any = ArraySamples(images().reshape(6, -1))
        with raises("EF507", "768", "height"):
            fake_quantize(net, MIN_MAX, samples=flat)

    def test_samples_with_nan(self, net: Net) -> None:
        broken = images()
        broken[3, 0, 2, 2] = np.nan
        with raises("EF508", "NaN"):
            fake_quantize(net, MIN_MAX, samples=ArraySamples(broken))

    def test_nothing_to_quantize(self, net: Net) -> None:
        with raises("EF504", "nothing"):
            fake_quantize(net, without("*"), samples=ArraySamples(images()))

    def test_a_recipe_that_fits_nothing(self, net: Net) -> None:
        with raises("EF504", "no_such_layer"):
            fake_quantize(net, without("no_such_layer"), samples=ArraySamples(images()))

    def test_int8_attention(self, net: Net) -> None:
        recipe = load_recipe(quantize_attention=True)
        with raises("EF558", "default", "quantize_attention"):
            fake_quantize(net, recipe, samples=ArraySamples(images()))

    def test_export_in_training_mode(self, trained: Any) -> None:
        with raises("EF559", ".eval()"):
            export_onnx(copy.deepcopy(trained).train(), input_size=(SIZE, SIZE))

    def test_a_calibration_of_a_balanced_or_another_model(self, net: Net) -> None:
        key = CalibrationKey(model="m", data="d", settings="s", tool="t")
        other = Calibration(key=key, recipe="r", observer=ObserverSettings(), images=1, ranges={"input": 1.0})
        with raises("EF560", "no range"):
            fake_quantize(net, MIN_MAX, calibration=other, input_size=(SIZE, SIZE))
        balanced = other.model_copy(update={"transforms": {"input": ChannelTransform(scale=(2.0,), offset=(0.0,))}})
        with raises("EF560", "balance"):
            fake_quantize(net, MIN_MAX, calibration=balanced, input_size=(SIZE, SIZE))
        with raises("EF103", "input_size"):
            fake_quantize(net, MIN_MAX, calibration=other)
