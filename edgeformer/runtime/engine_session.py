"""A TensorRT or TensorRT-RTX engine on the machine's GPU, through Polygraphy's TrtRunner.

Polygraphy calls CUDA itself, so that a device needs TensorRT and NumPy and no more. Tested without a GPU up to the
point where CUDA is needed; what follows (the load that succeeds, the run) was not run yet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.machine.backends import Flavour, import_backend, installed_flavours, require_backend
from edgeformer.machine.engine_code import EngineCode, engine_code
from edgeformer.machine.messages import MessageLog, make_logger
from edgeformer.machine.plugin_registry import load_plugin_library
from edgeformer.runtime.gpu import can_run_engine
from edgeformer.runtime.polygraphy_support import quiet_polygraphy, use_flavour
from edgeformer.runtime.session import Array, Session, TensorInfo, check_feeds, closed_error

__all__ = ["EngineSession", "choose_flavour", "deserialize", "tensor_info"]


def choose_flavour(flavour: Flavour | None, installed: tuple[Flavour, ...]) -> Flavour:
    """The flavour asked for, or the only one that is installed.

    Raises:
        InputError: none was asked for, and both are installed: an engine file does not say which it needs.
        EnvironmentFault: none was asked for, and none is installed.
    """
    if flavour is not None:
        return flavour
    if not installed:
        raise EnvironmentFault("EF605", "neither tensorrt nor tensorrt_rtx is installed: pip install tensorrt-rtx")
    if len(installed) > 1:
        raise InputError(
            "EF103",
            "tensorrt and tensorrt_rtx are both installed: give the one that built the engine as flavour=",
        )
    return installed[0]


def tensor_info(dtype: Any, shape: tuple[int, ...]) -> TensorInfo:
    """TensorInfo of an engine's tensor.

    Args:
        dtype: Polygraphy's DataType, or anything that it converts from.
        shape: TensorRT's shape, -1 where a dimension is free.

    Raises:
        InputError: the tensor is of type bfloat16, which NumPy does not have.
    """
    from polygraphy.datatype import DataType

    kind = DataType.from_dtype(dtype)
    if kind == DataType.BFLOAT16:
        raise InputError(
            "EF807", "an engine with bfloat16 inputs or outputs cannot be run from NumPy: build it with FP32 ones"
        )
    sizes = tuple(size if size >= 0 else f"dim{index}" for index, size in enumerate(shape))
    return TensorInfo(np.dtype(DataType.to_dtype(kind, "numpy")), sizes)


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
            flavour: the TensorRT that built the engine; None takes the only one that is installed.
            trust_bundle: you trust whoever made the bundle that the files are part of.
            key: PEM file with the public key of the bundle's maker; its signature has to hold.
            embedded_plugin: let the plugin library run that an engine of no bundle has embedded in it. Of a bundle's
                engine the manifest says whether there is one.

        Raises:
            InputError: no such file, files of a bundle that is not trusted or is not what its maker signed, or an
                engine that this TensorRT and GPU cannot load.
            EnvironmentFault: no CUDA GPU, TensorRT is not installed, or the plugin library cannot be loaded.
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
        self._runner = _make_runner(self._path, code, choose_flavour(flavour, installed_flavours()))
        try:
            self._inputs, self._outputs = self._tensors()
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
            InputError: feeds that do not fit ``inputs`` or the profile, or a session that was closed.
        """
        from polygraphy.exception import PolygraphyException

        if not self._runner.is_active:
            raise closed_error(str(self._path))
        check_feeds(self._inputs, feeds)
        try:
            with quiet_polygraphy():
                outputs = self._runner.infer({name: np.ascontiguousarray(feed) for name, feed in feeds.items()})
        except PolygraphyException as error:
            raise InputError("EF805", f"{self._path}: the engine failed: {error}") from error
        # The runner writes its next outputs to the same memory.
        return {name: np.array(outputs[name]) for name in self._outputs}

    def close(self) -> None:
        """Free the engine and its buffers."""
        if self._runner.is_active:
            self._runner.deactivate()

    def _tensors(self) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
        engine = self._runner.engine
        inputs: dict[str, TensorInfo] = {}
        outputs: dict[str, TensorInfo] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            side = inputs if engine.get_tensor_mode(name).name == "INPUT" else outputs
            side[name] = tensor_info(engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
        return inputs, outputs


def _make_runner(path: Path, code: EngineCode, flavour: Flavour) -> Any:
    """An active TrtRunner over the engine."""
    from polygraphy.backend.trt import TrtRunner
    from polygraphy.exception import PolygraphyException

    use_flavour(flavour)
    trt: Any = import_backend(require_backend(flavour))
    messages = MessageLog()
    logger = make_logger(trt, messages)
    trt.init_libnvinfer_plugins(logger, "")
    if code.library is not None:
        load_plugin_library(trt.get_plugin_registry(), code.library, flavour=flavour, rtx_alias=code.rtx_alias)
    engine = deserialize(trt.Runtime(logger), code)
    try:
        if engine is not None:
            runner = TrtRunner(engine)
            with quiet_polygraphy():
                runner.activate()
            return runner
        reason = "it gives no engine"
    except PolygraphyException as error:
        reason = str(error)
    raise InputError(
        "EF651",
        f"{path}: {flavour} {trt.__version__} cannot load this engine on this GPU: "
        f"{' '.join(messages.errors) or reason}. Build it again for this machine",
    )


def deserialize(runtime: Any, code: EngineCode) -> Any:
    """The engine in a TensorRT runtime, or None where TensorRT refuses it.

    Polygraphy's loader is not used: it lets host code in any engine run.
    """
    runtime.engine_host_code_allowed = code.host_code
    return runtime.deserialize_cuda_engine(code.content)
