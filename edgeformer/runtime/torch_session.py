"""A PyTorch model behind the interface that ONNX models and engines run behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer.errors import InputError
from edgeformer.runtime.session import Array, Session, TensorInfo, check_feeds, closed_error

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["INPUT_NAME", "TorchSession", "channels_of", "evaluating", "name_outputs", "run_model"]

INPUT_NAME = "input"


class evaluating:  # noqa: N801 - a context manager, named as contextlib names its own
    """Within it the model is in eval mode; after it every module is in the mode it was in."""

    def __init__(self, model: nn.Module) -> None:
        """Take the model; nothing changes yet."""
        self._model = model
        self._modes: dict[nn.Module, bool] = {}

    def __enter__(self) -> None:
        self._modes = {module: module.training for module in self._model.modules()}
        self._model.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self._modes.items():
            module.training = training


def channels_of(model: nn.Module) -> int:
    """Channels of the images that a model takes: what its configuration says, 3 for a model without one."""
    return int(getattr(getattr(model, "config", None), "in_channels", 3))


def run_model(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Call a model; gives its outputs, one or several.

    Raises:
        InputError: the model does not take these images (its own message is kept), or returns something else than
            a tensor, or a list or tuple of tensors.
    """
    import torch

    try:
        result = model(images)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "EF211",
            f"the model {type(model).__name__} does not run on an input {list(images.shape)}: "
            f"{type(error).__name__}: {error}",
        ) from error
    found = (result,) if isinstance(result, torch.Tensor) else result
    if not isinstance(found, (tuple, list)) or not found or not all(isinstance(item, torch.Tensor) for item in found):
        raise InputError(
            "EF212",
            f"the model returns a {type(result).__name__}: it has to return a tensor, or a list or tuple of tensors",
        )
    return tuple(found)


def name_outputs(count: int, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The outputs' names: ``logits`` for one, ``stage0`` .. for several, unless ``names`` gives others.

    Raises:
        InputError: ``names`` is not one different name per output.
    """
    if names is None:
        return ("logits",) if count == 1 else tuple(f"stage{index}" for index in range(count))
    if len(names) != count or len(set(names)) != count:
        raise InputError(
            "EF213", f"the model has {count} outputs and {list(names)} as their names: give each a name of its own"
        )
    return tuple(names)


class TorchSession(Session):
    """Runs a PyTorch model in eval mode, without gradients; the mode it was in is restored after each run.

    The model is the caller's: ``close`` lets go of it and leaves it as it is.
    """

    def __init__(
        self, model: nn.Module, *, input_size: tuple[int, int], output_names: tuple[str, ...] | None = None
    ) -> None:
        """Wrap a model and run it once, to learn its outputs.

        Args:
            model: takes float32 [samples, channels, height, width] (see `channels_of`).
            input_size: height and width.
            output_names: as for ``export_onnx``.

        Raises:
            InputError: the model does not take this size, or returns something else than tensors.
        """
        self._model: nn.Module | None = model
        self._name = f"the model {type(model).__name__}"
        image = (channels_of(model), *input_size)
        self._inputs = {INPUT_NAME: TensorInfo(np.dtype(np.float32), ("batch", *image))}
        results = self._forward(np.zeros((1, *image), np.float32))
        self._names = name_outputs(len(results), output_names)
        self._outputs = {
            name: TensorInfo(result.dtype, ("batch", *result.shape[1:]))
            for name, result in zip(self._names, results, strict=True)
        }

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """The one input."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """The outputs by name, in the model's order."""
        return self._outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises InputError for feeds that do not fit ``inputs``, or after ``close``."""
        check_feeds(self._inputs, feeds)
        return dict(zip(self._names, self._forward(feeds[INPUT_NAME]), strict=True))

    @property
    def modules(self) -> frozenset[str]:
        """Paths of the model's modules, as `torch.nn.Module.named_modules` has them; the model itself is not one.

        Raises:
            InputError: the session was closed.
        """
        if self._model is None:
            raise closed_error(self._name)
        return frozenset(name for name, _ in self._model.named_modules() if name)

    def watch(
        self, images: Array, modules: Collection[str], visit: Callable[[str, Array], None]
    ) -> list[tuple[Array, Array]]:
        """Run once, and see what modules inside the model give.

        Args:
            images: for the model's input.
            modules: paths of the modules to see; one that gives no single tensor is left out.
            visit: called with a module's path and what it gave, each time that it was called.

        Returns:
            For each top-k that ran, in order, what it chose from and the indices of what it chose.

        Raises:
            InputError: as `run`.
        """
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        chosen: list[tuple[Array, Array]] = []

        class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                if func is torch.ops.aten.topk.default:
                    chosen.append((args[0].cpu().numpy(), result[1].cpu().numpy()))
                return result

        def see(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, given: Any, result: Any) -> None:
                if isinstance(result, torch.Tensor):
                    # A copy: what follows may write into it.
                    visit(name, result.detach().cpu().numpy().copy())

            return hook

        if self._model is None:
            raise closed_error(self._name)
        check_feeds(self._inputs, {INPUT_NAME: images})
        hooks = [
            module.register_forward_hook(see(name)) for name, module in self._model.named_modules() if name in modules
        ]
        try:
            with Watch():  # type: ignore[no-untyped-call]
                self._forward(images)
        finally:
            for hook in hooks:
                hook.remove()
        return chosen

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _forward(self, images: Array) -> tuple[Array, ...]:
        import torch

        model = self._model
        if model is None:
            raise closed_error(self._name)
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        with evaluating(model), torch.no_grad():
            outputs = run_model(model, torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device))
            return tuple(tensor.cpu().numpy() for tensor in outputs)
