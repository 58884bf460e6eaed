"""What a bundle's latency is put beside: PyTorch, `torch.compile`, and ONNX Runtime's own session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import Manifest
from edgeformer.bundle.files import EXPORTED
from edgeformer.data import Preprocessing
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.latency import CallRunner, Subject
from edgeformer.pipeline.application import preprocessing_of

if TYPE_CHECKING:
    from edgeformer.pipeline.model_source import NamedModel

__all__ = ["BASELINES", "BaselineName", "OnnxRuntimeBaseline", "TorchBaseline", "baseline_of"]

BaselineName = Literal["pytorch", "torch-compile", "onnxruntime"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)


def baseline_of(
    name: BaselineName,
    bundle: Path,
    manifest: Manifest,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> TorchBaseline | OnnxRuntimeBaseline:
    """A baseline for a bundle.

    Args:
        name: which one.
        bundle: the bundle's folder.
        manifest: the bundle's.
        checkpoint: where the checkpoint lies now, if it was moved.
        threads: of the processor; None takes the library's own.

    Raises:
        InputError: PyTorch is asked for, and the bundle was made from an ONNX file, or its checkpoint is not there.
    """
    if name == "onnxruntime":
        return OnnxRuntimeBaseline(bundle / EXPORTED, threads)
    from edgeformer.pipeline.model_source import NamedModel  # needs onnx, which a device that measures lacks

    made_from, preprocessing = manifest.model, preprocessing_of(manifest)
    if made_from.source != "registry" or not isinstance(preprocessing, Preprocessing):
        raise InputError(
            "EF918", f"--baseline {name} needs a bundle of a named model, and {bundle} was made from an ONNX file"
        )
    weights = None
    if made_from.checkpoint_sha256 is not None:
        recorded = Path(checkpoint or made_from.checkpoint or "")
        places = [recorded] if checkpoint else [recorded, bundle.parent / recorded.name]
        there = [path for path in places if path.is_file() and sha256_of_file(path) == made_from.checkpoint_sha256]
        if not there:
            raise InputError(
                "EF918",
                f"--baseline {name} needs the checkpoint that {bundle} was made from, and {recorded} is not there, or "
                "is another: name it with --checkpoint",
            )
        weights = there[0]
    named = NamedModel(made_from.name, weights, made_from.overrides, preprocessing, made_from.checkpoint_key)
    return TorchBaseline(named, compiled=name == "torch-compile", threads=threads)


class TorchBaseline:
    """A model of the registry in PyTorch, on the GPU where PyTorch has one."""

    def __init__(self, model: NamedModel, *, compiled: bool, threads: int | None) -> None:
        """Take the model; nothing is loaded yet.

        Args:
            model: with its checkpoint.
            compiled: by `torch.compile`.
            threads: of the processor; None takes PyTorch's own.
        """
        self._model, self._compiled, self._threads = model, compiled, threads
        self.name: BaselineName = "torch-compile" if compiled else "pytorch"

    @contextmanager
    def open(self, batch: int) -> Iterator[Subject]:
        """The model ready to run: images from the host and outputs back to it, in FP32.

        Raises:
            EnvironmentFault: torch is not installed, or cannot compile here.
        """
        try:
            import torch
        except ImportError as error:
            raise EnvironmentFault(
                "EF601", f"--baseline {self.name} needs torch ({error}): pip install 'edgeformer[export]'"
            ) from error

        from edgeformer.runtime.torch_session import channels_of

        network, _ = self._model.create()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        size = self._model.preprocessing
        images = torch.from_numpy(
            np.random.default_rng(0).standard_normal((batch, channels_of(network), size.height, size.width), np.float32)
        )
        module: Any = network.eval().to(device)
        if self._compiled:
            module = torch.compile(module)

        def call() -> Any:
            with torch.inference_mode():
                found = module(images.to(device))
                outputs = (found,) if isinstance(found, torch.Tensor) else found
                return [output.cpu() for output in outputs]

        with _torch_threads(self._threads):
            try:
                call()
            except Exception as error:
                if not self._compiled:
                    raise
                raise EnvironmentFault(
                    "EF919", f"--baseline torch-compile: torch.compile fails here: {_first_line(error)}"
                ) from error
            yield _subject(self.name, call, batch, torch.__version__, device.type.upper().replace("CUDA", "GPU"))


class OnnxRuntimeBaseline:
    """The exported graph in ONNX Runtime's own session, with its defaults."""

    name: BaselineName = "onnxruntime"

    def __init__(self, graph: Path, threads: int | None) -> None:
        """Take the graph.

        Args:
            graph: the ONNX file.
            threads: of the processor; None takes one a core.
        """
        self._graph, self._threads = graph, threads

    @contextmanager
    def open(self, batch: int) -> Iterator[Subject]:
        """The session, on a GPU where the installed ONNX Runtime has one."""
        from edgeformer.runtime.onnx_session import PlainSession

        plain = PlainSession.load(self._graph, self._threads)
        generator = np.random.default_rng(0)
        feeds = {}
        for name, info in plain.inputs.items():
            shape = [size if isinstance(size, int) else batch for size in info.shape]
            feeds[name] = (64 * generator.random(shape)).astype(info.dtype)
        device = "GPU" if plain.provider.startswith("CUDA") else "CPU"
        yield _subject(self.name, lambda: plain.session.run(None, feeds), batch, plain.version, device)


def _subject(name: BaselineName, call: Callable[[], Any], batch: int, version: str, device: str) -> Subject:
    title = {"pytorch": "PyTorch", "torch-compile": "torch.compile", "onnxruntime": "ONNX Runtime"}[name]
    return Subject(
        name=title,
        runner=CallRunner(call),
        batch=batch,
        kind="baseline",
        precision="fp32",
        backend=name,
        backend_version=version,
        device=device,
        gpu_note="only end to end is measured of a baseline",
    )


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
