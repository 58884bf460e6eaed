"""A TensorRT or TensorRT-RTX engine on the machine's GPU, in the runtime library that applications use, too.

Before, what of an engine's files may run is settled here (`edgeformer.machine.engine_code`). What a GPU takes was tried
with stand-ins for the driver and TensorRT; no engine was run on a GPU yet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeformer.errors import InputError
from edgeformer.inference.description import TensorDescription
from edgeformer.inference.loading import load_engine
from edgeformer.machine.backends import Flavour
from edgeformer.machine.engine_code import engine_code
from edgeformer.ops.memory import bfloat16
from edgeformer.runtime.gpu import can_run_engine
from edgeformer.runtime.session import Array, Session, TensorInfo, check_feeds, closed_error

__all__ = ["EngineSession", "tensor_infos"]


def tensor_infos(tensors: Sequence[TensorDescription]) -> dict[str, TensorInfo]:
    """The engine's inputs or outputs by name, with a name for each free size.

    Raises:
        InputError: one is of type bfloat16, which NumPy does not have.
    """
    infos = {}
    for tensor in tensors:
        if tensor.dtype == bfloat16:
            raise InputError(
                "EF807",
                f"`{tensor.name}` is bfloat16, which NumPy does not have: build the engine with FP32 inputs and "
                "outputs, or run it with ef.load and arrays of torch",
            )
        shape = tuple(f"dim{axis}" if size is None else size for axis, size in enumerate(tensor.shape))
        infos[tensor.name] = TensorInfo(tensor.dtype, shape)
    return infos


class EngineSession(Session):
    """Runs an engine file. Use it as a context manager, or call ``close``, to give the GPU's memory back."""

    def __init__(
        self,
        engine: str | os.PathLike[str],
        plugin_library: str | os.PathLike[str] | None = None,
        *,
        flavour: Flavour | None = None,
        trust_bundle: bool = False,
        key: str | os.PathLike[str] | None = None,
        embedded_plugin: bool = False,
    ) -> None:
        """Load the engine. It is code that runs here: an engine of a bundle needs ``trust_bundle`` or ``key``.

        Args:
            engine: the engine file.
            plugin_library: the library with the plugins in the engine, where there are any. If it is the same as the
                installed one, that one is opened.
            flavour: the TensorRT that built the engine; None takes the one that the engine's header names.
            trust_bundle: you trust whoever made the bundle that the files are part of.
            key: PEM file with the public key of the bundle's maker; its signature has to hold.
            embedded_plugin: let the plugin library run that an engine of no bundle has embedded in it. Of a bundle's
                engine the manifest says whether there is one.

        Raises:
            InputError: no such file, files of a bundle that is not trusted or is not what its maker signed, or an
                engine that this TensorRT and GPU cannot load.
            EnvironmentFault: no CUDA GPU, TensorRT's library is not there, or the plugin library cannot be loaded.
        """
        self._path = Path(engine)
        code = engine_code(
            self._path,
            None if plugin_library is None else Path(plugin_library),
            trust_bundle=trust_bundle,
            key=None if key is None else Path(key),
            embedded_plugin=embedded_plugin,
        )
        can_run_engine(flavour, raise_error=True)
        self._model = load_engine(
            self._path,
            code.content,
            flavour=flavour,
            plugin_library=code.library,
            embedded_plugin=code.host_code,
        )
        self._closed = False
        try:
            description = self._model.describe()
            self._inputs = tensor_infos(description.inputs)
            self._outputs = tensor_infos(description.outputs)
        except BaseException:
            self.close()
            raise

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """The inputs by name, in the engine's order."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """The outputs by name, in the engine's order."""
        return self._outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and wait for it; the shapes have to lie within the engine's optimization profile.

        Raises:
            InputError: feeds that do not fit ``inputs`` or the profile, a run that failed, or a session that was
                closed.
        """
        if self._closed:
            raise closed_error(str(self._path))
        check_feeds(self._inputs, feeds)
        return self._model.run(feeds)

    def close(self) -> None:
        """Free the engine and its buffers."""
        self._closed = True
        self._model.close()
