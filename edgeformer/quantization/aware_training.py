"""Quantization-aware training: a PyTorch model that rounds as its exported graph will.

Placement is the policy's (`decide`), read off the graph that the model is exported as and carried back to its modules.
Ranges come from the observers that quantize after training, over the same graph. Batch norms that are folded into
convolutions before those are quantized are folded in the module, too: what is trained is the folded weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.graph.bias import bias_of
from edgeformer.graph.fold_batch_norm import fold_batch_norm
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.prepare import prepared
from edgeformer.graph.qdq import LayerSite, layer_site
from edgeformer.progress import Progress
from edgeformer.quantization.calibration import Calibration
from edgeformer.quantization.module_map import node_modules
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.recipe import Recipe, load_recipe
from edgeformer.quantization.streaming import SamplesLike, TensorStream

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["fake_quantize"]

_BATCH_SIZE = 8
_OPSET = 20  # as quantization after training has it
_LISTED = 5
# Amplitude by which an input of a layer, or an output, may differ between the graph and the folded module, as a share
# of the largest: sums in another order, and a region that a near-tie in the routing swaps.
_TOLERANCE = 0.05


def fake_quantize(
    model: nn.Module,
    recipe: Recipe | None = None,
    *,
    samples: SamplesLike | None = None,
    calibration: Calibration | None = None,
    input_size: tuple[int, int] | None = None,
    learn_scales: bool = False,
    freeze_batch_norm: bool = True,
    batch_size: int = _BATCH_SIZE,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of ``model`` that rounds as its INT8 graph does, to be fine-tuned and exported.

    It is of the same class and takes and gives what ``model`` does. Its Linears and convolutions that become INT8 round
    their input and their weight in every forward pass, in training and in evaluation alike; gradients pass the rounding
    as if it were not there. `edgeformer.export_onnx` exports it with its Q/DQ pairs, and `edgeformer.build` takes that
    file at ``precision="int8"``. Each rounding is that of the exported graph, bit for bit; the sums between them are
    floating point, which PyTorch, ONNX Runtime and TensorRT add up in orders of their own.

    Of the recipe, the observer and the overrides are used. Its other fields make up for what training learns itself.

    Args:
        model: takes float32 images ``[N, channels, height, width]``; unchanged. Of a CPU or a GPU.
        recipe: None is the default one.
        samples: calibration images at the input size, as `edgeformer.open_samples` gives them.
        calibration: ranges that are known already, in place of ``samples``: of this model's exported graph, unfused,
            with no activation balanced (`edgeformer.quantization.calibrate` with such a recipe). Layers that it
            returned to floating point stay there; INT8 weights and biases of its own are not used.
        input_size: height and width of the graph; default: that of the samples.
        learn_scales: make the step of every activation a parameter (LSQ). Weights' steps follow the weights.
        freeze_batch_norm: keep the statistics of the batch norms that no convolution takes in as they are while
            training, which small batches would spoil.
        batch_size: images a run while ranges are observed.
        progress: told what is going on.

    Raises:
        InputError: the model is not float32, cannot be exported, is fake-quantized already, has nothing to quantize, or
            has INT8 layers that are no modules (all are named); recipe, samples or calibration are missing or do not
            fit; samples make NaN or infinity.
        EnvironmentFault: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise EnvironmentFault("EF601", "fake_quantize needs torch: pip install 'edgeformer[export]'") from error
    from edgeformer.export import export_onnx
    from edgeformer.quantization.torch_rounding import is_fake_quantized

    recipe = recipe or load_recipe()
    if is_fake_quantized(model):
        raise InputError("EF555", "the model is fake-quantized already: give the float model, or train this one")
    _check_float32(model)
    if recipe.quantize_attention:
        raise InputError(
            "EF558",
            f"the recipe {recipe.name!r} asks for INT8 attention (quantize_attention), which is not imitated in "
            "training: leave it out",
        )
    size = input_size or _size(samples, calibration)
    twin = copy.deepcopy(model)
    graph = fold_batch_norm(prepared(raise_opset(export_onnx(twin, input_size=size), _OPSET)))
    index = GraphIndex(graph)
    layers = _layers(index, twin, recipe, calibration)
    executed = _executed(twin, size)
    _check_modules(layers, executed)
    with torch.no_grad():
        _take_over(index, twin, executed)
        _check_same(index, model, twin, layers, size)
    if freeze_batch_norm:
        _freeze(twin)
    ranges = _ranges(graph, index, layers, recipe, samples, calibration, batch_size, progress)
    _attach(layers, ranges, learn=learn_scales)
    return twin


@dataclass(frozen=True)
class _Layer:
    """A layer that becomes INT8.

    Attributes:
        decision: on it.
        site: where its Q/DQ pairs go.
        module: that computes it; None where none was found.
    """

    decision: Decision
    site: LayerSite
    module: nn.Module | None


def _check_float32(model: nn.Module) -> None:
    import torch

    kinds = {str(one.dtype).removeprefix("torch.") for one in model.parameters() if one.dtype != torch.float32}
    if kinds:
        raise InputError(
            "EF556",
            f"the model has weights of type {', '.join(sorted(kinds))}: fake-quantize it in float32 (model.float()), "
            "and train with torch.autocast where 16 bits are wanted",
        )


def _size(samples: SamplesLike | None, calibration: Calibration | None) -> tuple[int, int]:
    if samples is None:
        raise InputError(
            "EF103",
            "fake_quantize needs calibration images: give samples=edgeformer.open_samples(...)"
            if calibration is None
            else "fake_quantize with a calibration and no samples needs input_size=(height, width)",
        )
    if not hasattr(samples, "batches"):
        raise InputError(
            "EF103",
            f"samples is a {type(samples).__name__}: give what edgeformer.open_samples makes of a folder or array",
        )
    shape = next(iter(samples.batches(1))).images.shape
    if len(shape) != 4:
        raise InputError("EF507", f"samples of shape {list(shape[1:])} are no images [channels, height, width]")
    return shape[2], shape[3]


def _layers(index: GraphIndex, model: nn.Module, recipe: Recipe, calibration: Calibration | None) -> list[_Layer]:
    """What the policy quantizes, and the modules."""
    returned = () if calibration is None else tuple(layer.output for layer in calibration.returned)
    decisions = [
        item
        for item in decide(index.model, recipe.overrides, index=index)
        if item.quantized and item.output not in returned
    ]
    modules = {node.output[0]: module for node, module in node_modules(index, model)}
    found = []
    for item in decisions:
        site = layer_site(index, index.producer[item.output])
        assert isinstance(site, LayerSite)  # or it would not be quantized
        found.append(_Layer(item, site, modules.get(item.output)))
    if not found:
        raise InputError(
            "EF504",
            "nothing in this model is to be quantized: it has no Linear and no dense convolution besides its "
            "classifier, or the recipe leaves all of them out",
        )
    return found


def _executed(model: nn.Module, size: tuple[int, int]) -> set[nn.Module]:
    """The modules that are called when the model runs."""
    called: set[nn.Module] = set()

    def note(module: nn.Module, *_: Any) -> None:
        called.add(module)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        _run(model, _noise(model, size))
    finally:
        for handle in handles:
            handle.remove()
    return called


def _noise(model: nn.Module, size: tuple[int, int]) -> torch.Tensor:
    import torch

    from edgeformer.runtime.torch_session import channels_of

    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, channels_of(model), *size), generator=generator).to(device)


def _run(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    import torch

    from edgeformer.runtime.torch_session import evaluating, run_model

    with evaluating(model), torch.no_grad():
        return run_model(model, images)


def _check_modules(layers: Sequence[_Layer], executed: set[nn.Module]) -> None:
    missing = [layer for layer in layers if layer.module is None or layer.module not in executed]
    if missing:
        listed = ", ".join(f"{layer.decision.node} (weight {layer.site.weight!r})" for layer in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise InputError(
            "EF557",
            f"{len(missing)} layers become INT8 and are no calls of an nn.Linear or a convolution, whose input and "
            f"weight could be rounded: {listed}{more}. Leave them in floating point (an override of the recipe with "
            'their name and "quantize": false), or write them as modules',
        )


def _take_over(index: GraphIndex, model: nn.Module, executed: set[nn.Module]) -> None:
    """Give the modules the weights that the graph has, in which batch norms are folded; those become nn.Identity."""
    import torch
    from torch import nn

    layers: dict[nn.Module, onnx.NodeProto] = {}
    for node, module in node_modules(index, model):
        layers.setdefault(module, node)
    for module, node in layers.items():
        site = layer_site(index, node)
        weight = index.array(node.input[1])
        if not isinstance(site, LayerSite) or weight is None or module not in executed:
            continue
        own: Any = module
        given = torch.from_numpy(np.array(weight if site.axis == 0 else weight.T, order="C"))
        if given.shape != own.weight.shape or torch.equal(given, own.weight.detach().cpu()):
            continue
        own.weight.copy_(given)
        found = bias_of(index, node, len(given))
        bias = np.zeros(len(given), np.float32) if found is None else index.array(found[0].input[found[1]])
        assert bias is not None
        own.bias = nn.Parameter(torch.from_numpy(bias.copy()).to(own.weight.device))
    kept = {name for node in index.model.graph.node if node.op_type == "BatchNormalization" for name in node.input[1:]}
    for name, module in list(model.named_modules()):
        # What is behind the batch norm's own names is its scale and offset; without those it is told by its mean.
        if _is_batch_norm(module) and module in executed and not _reads(module, name, index, kept):
            _replace(model, module, nn.Identity())


def _is_batch_norm(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _reads(module: nn.Module, name: str, index: GraphIndex, kept: set[str]) -> bool:
    return bool(kept) and any(f"{name}.{part}" in kept for part in ("weight", "bias", "running_mean", "running_var"))


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def _check_same(
    index: GraphIndex, model: nn.Module, twin: nn.Module, layers: Sequence[_Layer], size: tuple[int, int]
) -> None:
    """Hold the modules' inputs against the graph's activations, and the folded model against the given one.

    Raises:
        InputError: they differ: modules do more than their node in the graph, or less.
    """
    import torch

    images = _noise(twin, size)
    seen: dict[nn.Module, list[float]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = args[0] if args else kwargs["input"]
        seen.setdefault(module, []).append(float(values.abs().max()))

    modules = {layer.module for layer in layers if layer.module is not None}
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        outputs = _run(twin, images)
    finally:
        for handle in handles:
            handle.remove()
    stream = TensorStream(index.model, list(dict.fromkeys(layer.site.activation for layer in layers)))
    largest = {name: float(np.abs(values).max()) for name, values in stream.run(images.cpu().numpy()).items()}
    faults = []
    for layer in layers:
        assert layer.module is not None
        wanted = largest[layer.site.activation]
        if not any(abs(found - wanted) <= _TOLERANCE * wanted for found in seen[layer.module]):
            faults.append(f"{layer.decision.node} reads up to {wanted:.4g} and its module {seen[layer.module][0]:.4g}")
    for before, after in zip(_run(model, images), outputs, strict=True):
        change = float(torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(before).clamp(min=1e-30))
        if not change <= _TOLERANCE:
            faults.append(f"with batch norms folded the output changes by {100 * change:.2g} %")
    if faults:
        raise InputError(
            "EF557",
            "modules and graph do not compute the same, so that rounding in the one is not rounding in the other: "
            f"{'; '.join(faults[:_LISTED])}. Leave these layers in floating point (an override of the recipe), or "
            "write them as plain modules",
        )


def _keep_frozen(module: nn.Module, _: Any) -> None:
    module.training = False


def _freeze(model: nn.Module) -> None:
    for module in model.modules():
        if _is_batch_norm(module):
            module.register_forward_pre_hook(_keep_frozen)


def _ranges(
    graph: onnx.ModelProto,
    index: GraphIndex,
    layers: Sequence[_Layer],
    recipe: Recipe,
    samples: SamplesLike | None,
    calibration: Calibration | None,
    batch_size: int,
    progress: Progress | None,
) -> Mapping[str, float]:
    if calibration is None:
        assert samples is not None  # or there were no size
        sites = [layer.site for layer in layers]
        return observe(
            graph, samples, sites, observer=recipe.observer, batch_size=batch_size, progress=progress, index=index
        ).ranges
    if calibration.transforms:
        raise InputError(
            "EF560",
            "the calibration's ranges are for activations that were balanced (SmoothQuant), which a model in "
            'training is not: calibrate with a recipe that has "balance": false, or give samples',
        )
    missing = [layer.site.activation for layer in layers if layer.site.activation not in calibration.ranges]
    if missing:
        raise InputError(
            "EF560",
            f"the calibration has no range for {len(missing)} activations of this model, such as {missing[0]!r}: "
            "calibrate the graph that export_onnx gives of it, or give samples",
        )
    return calibration.ranges


def _attach(layers: Sequence[_Layer], ranges: Mapping[str, float], *, learn: bool) -> None:
    """One rounding for layers that read one tensor, and for the tensors that one module reads when it is called."""
    from edgeformer.quantization.torch_rounding import InputRounding, attach

    groups: list[tuple[set[str], set[nn.Module]]] = []
    for layer in layers:
        assert layer.module is not None
        tensors, modules = {layer.site.activation}, {layer.module}
        for group in [one for one in groups if one[0] & tensors or one[1] & modules]:
            groups.remove(group)
            tensors |= group[0]
            modules |= group[1]
        groups.append((tensors, modules))
    for tensors, modules in groups:
        device = next(next(iter(modules)).parameters()).device
        rounding = InputRounding(max(ranges[name] for name in tensors), learn=learn).to(device)
        for module in modules:
            attach(module, rounding)
