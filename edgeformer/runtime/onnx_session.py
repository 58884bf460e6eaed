"""An ONNX model in ONNX Runtime, on the CPU: the one place that knows ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime

from edgeformer.errors import InputError
from edgeformer.runtime.onnx_source import OnnxModel, OnnxSource, onnx_source
from edgeformer.runtime.session import Array, Session, TensorInfo, check_feeds, closed_error
from edgeformer.runtime.wide_quantization import cuts_off
from edgeformer.supervision.limits import limited

__all__ = ["OnnxSession", "Optimization", "PlainSession", "session_threads"]

Optimization = Literal["none", "basic", "extended", "all"]

_LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# Threads of the sessions that are opened here and now and are not told; None leaves them to ONNX Runtime.
_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)
# ONNX Runtime's FATAL: it says what is wrong in the exception it raises, and need not print it as well.
_SILENT = 4


def _info(argument: Any) -> TensorInfo:
    if argument.type not in _TYPES:
        raise InputError(
            "EF807",
            f"{argument.name!r} is a {argument.type}: only tensors of {', '.join(sorted(_TYPES.values()))} can be run",
        )
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in argument.shape)
    return TensorInfo(np.dtype(_TYPES[argument.type]), shape)


@contextmanager
def session_threads(count: int) -> Iterator[None]:
    """Within it, sessions are opened with ``count`` threads where nobody says how many: other work has the other cores.

    Results do not depend on the number of threads.
    """
    before = _THREADS.set(count)
    try:
        yield
    finally:
        _THREADS.reset(before)


class PlainSession(NamedTuple):
    """ONNX Runtime as people use it, to be timed beside: its own session with its defaults.

    Attributes:
        session: runs it.
        inputs: by name, in the model's order.
        provider: that it runs on: CUDA's where the installed package has it, else the CPU's.
        version: of ONNX Runtime.
    """

    session: onnxruntime.InferenceSession
    inputs: Mapping[str, TensorInfo]
    provider: str
    version: str

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> PlainSession:
        """Load an ONNX file.

        Args:
            path: the file.
            threads: threads within an operator; None leaves it to ONNX Runtime.

        Raises:
            InputError: ONNX Runtime cannot load it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        usual = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in usual if name in onnxruntime.get_available_providers()]
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions have no common base below Exception
            raise InputError("EF804", f"ONNX Runtime cannot load {path}: {error}") from error
        inputs = {argument.name: _info(argument) for argument in session.get_inputs()}
        return cls(session, inputs, session.get_providers()[0], onnxruntime.__version__)


class OnnxSession(Session):
    """Runs an ONNX model in ONNX Runtime's CPU provider; a node with a function body runs that body.

    The same for every use:

    - Q/DQ nodes are run as they are written (quantize, dequantize, compute in floating point): ONNX Runtime's own
      integer kernels saturate differently from processor to processor and would say nothing about an engine.
    - A model with bfloat16 in it is run in FP32 with every value rounded as bfloat16 rounds it, since the CPU provider
      has no bfloat16 kernels.
    - FP16 values are quantized to the nearest integer, as a GPU does it, also where ONNX Runtime would cut them off.
    - ONNX Runtime prints nothing, and tries nothing else where it fails: what is wrong is raised.
    - Threads sleep while they wait. Spinning, they take the core that they wait for.
    - Memory is given back after each run, and no run's memory is laid out in advance: a session would keep what its
      largest batch took.

    The caller's choice:

    - ``optimization``: "all" is the fastest; "basic" where tensors inside the graph are looked at, since fused nodes
      around Q/DQ would change the arithmetic that makes them; "none" where the graph itself is to be judged.
    - ``outputs``: what is given.
    - ``as_written``: for graphs with side branches whose ends alone are asked for. ONNX Runtime's own order begins with
      the last end of all, and so keeps what every other branch reads until the whole of the model has run.
    - ``threads``: to leave cores to others.
    """

    def __init__(
        self,
        model: OnnxModel,
        *,
        outputs: Sequence[str] | None = None,
        optimization: Optimization = "all",
        as_written: bool = False,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        Args:
            model: the model, its serialized bytes, or the path of its file. With a path, external data beside the file
                is mapped into memory and not copied; a model in memory may be larger than protobuf's 2 GiB.
            outputs: the tensors to give, outputs of the model or tensors inside its graph, in this order; None gives
                the model's outputs.
            optimization: ONNX Runtime's graph optimization level.
            as_written: run the nodes in the order in which they stand in the graph.
            threads: threads within an operator; None is what `session_threads` says, or else leaves it to ONNX Runtime
                (one per core).

        Raises:
            InputError: no such file, not an ONNX model, a tensor in ``outputs`` that the model does not have, or a
                model that ONNX Runtime cannot run (its reason is given).
            EnvironmentFault: loading took longer than its limit (`edgeformer.supervision.limits`).
        """
        source = onnx_source(model, outputs, widen=cuts_off(onnxruntime.__version__))
        self._name = source.name
        # ONNX Runtime uses the memory of weights that are handed over: they live as long as the session.
        self._weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(weight) for name, weight in source.weights.items()
        }
        options = _options(source, optimization, _THREADS.get() if threads is None else threads)
        if as_written:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        self._elements = source.elements

        def stop() -> None:
            options.set_load_cancellation_flag(True)

        with limited("load", f"loading {self._name} in ONNX Runtime", work=source.elements, stop=stop):
            try:
                # Without enable_fallback=0 it prints some errors to stdout and tries again.
                session = onnxruntime.InferenceSession(
                    source.model, options, providers=["CPUExecutionProvider"], enable_fallback=0
                )
            except Exception as error:  # ONNX Runtime's exceptions have no common base below Exception
                raise InputError("EF804", f"ONNX Runtime cannot load {self._name}: {error}") from error
        # It keeps the bytes for a fallback that is turned off: a copy of the weights for nothing.
        session._model_bytes = None
        self._session: onnxruntime.InferenceSession | None = session
        self._inputs = {argument.name: _info(argument) for argument in session.get_inputs()}
        given = {argument.name: argument for argument in session.get_outputs()}
        self._outputs = {name: _info(given[name]) for name in (given if outputs is None else outputs)}

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """The inputs by name, in the model's order."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """The outputs by name, in the model's order, or in that in which they were asked for."""
        return self._outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: an array per input, of the type and shape that ``inputs`` names.

        Returns:
            Every output by name.

        Raises:
            InputError: feeds that do not fit ``inputs``, a run that failed in ONNX Runtime (its reason is given), or a
                session that was closed.
            EnvironmentFault: the run took longer than its limit (`edgeformer.supervision.limits`) and was stopped.
        """
        if self._session is None:
            raise closed_error(self._name)
        check_feeds(self._inputs, feeds)
        if not self._outputs:
            # Asked for nothing, ONNX Runtime would give every output of the model.
            return {}
        options = _run_options()

        def stop() -> None:
            options.terminate = True

        # What a layer has to do is at most each weight for each position of the input.
        work = self._elements * sum(array.size for array in feeds.values())
        with limited("run", f"a run of {self._name}", work=work, stop=stop):
            try:
                outputs = self._session.run(list(self._outputs), dict(feeds), options)
            except Exception as error:
                raise InputError("EF805", f"{self._name} failed in ONNX Runtime: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        """Free the model in ONNX Runtime."""
        self._session = None
        self._weights = {}


def _run_options() -> onnxruntime.RunOptions:
    """Options of one run: a run that was stopped must not stop the next."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _options(source: OnnxSource, optimization: Optimization, threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _LEVELS[optimization]
    options.log_severity_level = _SILENT
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if source.folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(source.folder))
    return options
