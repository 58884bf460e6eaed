"""The op in TensorRT-RTX engines: built, run, compared with float64, timed with the plugin and without it.

A program of its own, because TensorRT ends its process on some failures. Every step is a line on standard output, the
last one the answer; a failure is a line, too, and the exit code says what it means. With ``--sm`` engines are built
ahead of time and not run, which needs no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from benchmarks.kernel_lab import reference
from benchmarks.kernel_lab.backend import Backend, CudaBackend
from benchmarks.kernel_lab.benchmark import input_sets
from benchmarks.kernel_lab.correctness import FLOAT16, INT8, Precision
from benchmarks.kernel_lab.shapes import TABLE, Shape
from benchmarks.kernel_lab.tensorrt_rtx import DROPPED, PLAIN_ENGINE_RUNS, REFUSED, WRONG
from edgeformer.errors import EdgeformerError
from edgeformer.machine.backends import import_backend, require_backend
from edgeformer.machine.messages import MessageLog, make_logger
from edgeformer.machine.plugin_registry import load_plugin_library
from edgeformer.ops.bi_level_routing_attention import DOMAIN, FUNCTION_OPSET, OP_VERSION, with_function
from edgeformer.ops.library_files import rtx_alias_of

__all__ = [
    "CASES",
    "Builder",
    "Case",
    "Outcome",
    "answer",
    "attempt",
    "build",
    "exit_code",
    "line_of",
    "main",
    "op_model",
]

Kind = Literal["body", "plugin"]
_SECONDS = 0.1
# The body multiplies weights and values in FP16, and rounds what is between its ops to FP16 as well.
_TOLERANCES: dict[Kind, float] = {"body": 5e-3, "plugin": 4e-4}
# Routing logits come from products of means: in FP32 by the kernels, in TF32, of 11 bits, where TensorRT multiplies.
_SUM_ROUNDING: dict[Kind, float] = {"body": 2.0**-10, "plugin": 0.0}
_ONNX_TYPES = {torch.float16: TensorProto.FLOAT16, torch.int8: TensorProto.INT8}


class EngineFault(EdgeformerError):
    """TensorRT-RTX does not build or run an engine; the message has its words."""


@dataclass(frozen=True)
class Case:
    """One op node.

    Attributes:
        shape: of the routing attention.
        batch: images.
        precision: of input and output.
        timed: whether it is worth timing.
    """

    shape: Shape
    batch: int
    precision: Precision
    timed: bool

    @property
    def name(self) -> str:
        """As the lines show it."""
        return f"{self.shape.name} batch {self.batch} {self.precision.name}"


@dataclass(frozen=True)
class Outcome:
    """What became of one engine.

    Attributes:
        case: its op node.
        kind: whether the plugin or the op's body is in it.
        fault: why it was not built or does not run, or what is wrong; empty if nothing is.
        wrong: whether it was there, and its output is wrong or its run failed; not where it was refused or does not
            fit into memory.
        activation_bytes: device memory for activations; None where it was not loaded.
        relative_error: ``|out - reference| / |reference|``; None where it did not run.
        median_us: of a run, microseconds; None where it was not timed.
        graph: whether runs were replayed from a CUDA graph.
    """

    case: Case
    kind: Kind
    fault: str = ""
    wrong: bool = False
    activation_bytes: int | None = None
    relative_error: float | None = None
    median_us: float | None = None
    graph: bool = False


_SMALL = (Shape("small", 8, 8, 64, 2, 2), Shape("t=77, topk 4", 21, 33, 96, 3, 4))
CASES = (
    *(Case(shape, 2, precision, False) for shape in _SMALL for precision in (FLOAT16, INT8)),
    *(Case(shape, 32, precision, True) for precision in (FLOAT16, INT8) for shape in TABLE[:3]),
)


def op_model(case: Case) -> onnx.ModelProto:
    """An ONNX model with one op node and its body."""
    attributes = case.shape.attributes(case.precision.step, case.precision.output)
    shape = case.shape.qkv_shape(case.batch)
    source = helper.make_tensor_value_info("qkv", _ONNX_TYPES[case.precision.torch_type], shape)
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT16, (*shape[:3], case.shape.dim))
    graph = helper.make_graph([attributes.make_node("qkv", "out", "attention")], "attention", [source], [target])
    opsets = [helper.make_opsetid("", FUNCTION_OPSET), helper.make_opsetid(DOMAIN, OP_VERSION)]
    return with_function(helper.make_model(graph, opset_imports=opsets))


class Builder:
    """Builds engines, all of them with one logger: TensorRT-RTX keeps the first that it gets.

    Args:
        trt: the module.
        library: the plugin library; None builds from the op's body alone.
        sm: compute capability times ten to build for ahead of time; None: the GPU that is here.
    """

    def __init__(self, trt: ModuleType, library: Path | None, sm: int | None) -> None:
        self.trt, self.library, self._sm = trt, library, sm
        self.messages = MessageLog()
        self.logger = make_logger(trt, self.messages)

    def load_plugin(self, registry: Any) -> None:
        """Make the plugin known to a registry."""
        if self.library is not None:
            alias = rtx_alias_of(self.library)
            load_plugin_library(registry, self.library, flavour="tensorrt_rtx", rtx_alias=alias)

    def fault(self, text: str) -> EngineFault:
        """What TensorRT has said since the last one."""
        words = " | ".join(dict.fromkeys(" ".join(message.split()) for message in self.messages.errors))
        self.messages.errors.clear()
        return EngineFault("EF625", f"{text}: {words or 'TensorRT gives no reason'}")

    def parsed(self, model: onnx.ModelProto, kind: Kind | None) -> Any:
        """The plan of a model; with ``kind``, its one op node is checked to be the plugin or the body."""
        trt = self.trt
        builder = trt.Builder(self.logger)
        if kind == "plugin":
            self.load_plugin(builder.get_plugin_registry())
        # What an engine before this one left is no error of this build.
        self.messages.errors.clear()
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self.logger)
        if kind == "plugin":
            parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
        if not parser.parse(model.SerializeToString()):
            words = "; ".join(parser.get_error(index).desc().strip() for index in range(parser.num_errors))
            raise EngineFault("EF624", f"the parser refuses the model: {words}")
        layers = [network.get_layer(index).type for index in range(network.num_layers)]
        if kind and (plugins := layers.count(trt.LayerType.PLUGIN_V3)) != (kind == "plugin"):
            raise EngineFault("EF628", f"the parsed network has {plugins} plugin layers and {len(layers)} in all")
        config = builder.create_builder_config()
        if self._sm is not None:
            capability = getattr(trt.ComputeCapability, f"SM{self._sm}", None)
            if capability is None:
                raise EngineFault("EF607", f"this TensorRT-RTX does not build for SM {self._sm}")
            config.num_compute_capabilities = 1
            config.set_compute_capability(capability, 0)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self.fault("the builder refuses the network")
        return plan


class Engine(Protocol):
    """An engine of one op node that can run."""

    activation_bytes: int

    def run(self, *, qkv: Tensor, out: Tensor) -> None:
        """Enqueue on torch's current stream."""


class Runner:
    """An engine on the GPU that is here."""

    def __init__(self, builder: Builder, runtime: Any, plan: Any) -> None:
        self._builder = builder
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise builder.fault("the engine does not load on this GPU")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise builder.fault("no execution context on this GPU")
        self.activation_bytes = int(self._engine.device_memory_size_v2)

    def run(self, **tensors: Tensor) -> None:
        """Enqueue on torch's current stream; tensors by their names."""
        for name, tensor in tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise self._builder.fault("the engine does not run on this GPU")


def _identity_model() -> onnx.ModelProto:
    """The least there is: does any engine run here?"""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1024,)) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Relu", ["twice"], ["y"])], "plain", [x], [y]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", FUNCTION_OPSET)])


def _run_plain(builder: Builder, runtime: Any) -> Backend:
    runner = Runner(builder, runtime, builder.parsed(_identity_model(), None))
    backend = CudaBackend()
    x = torch.randn(1024, device=backend.device)
    y = torch.full_like(x, float("nan"))
    with _stream_of_its_own(backend):
        runner.run(x=x, y=y)
    if not torch.equal(y, (2 * x).relu()):
        raise EngineFault("EF805", "the output of a plain engine is wrong")
    return backend


def _expected(case: Case, kind: Kind, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and at which tokens ``[N, H, W]`` rounding cannot have chosen other regions."""
    shape = case.shape
    attributes = shape.attributes(case.precision.step, case.precision.output)
    routing = reference.Routing(qkv, attributes, exact=False)
    expected = reference.attention(qkv, attributes, torch.from_numpy(routing.expected).to(qkv.device))
    settled = torch.from_numpy(routing.settled(_SUM_ROUNDING[kind])).reshape(-1, shape.regions, shape.regions)
    rows = settled.repeat_interleave(shape.height // shape.regions, dim=1)
    return expected, rows.repeat_interleave(shape.width // shape.regions, dim=2).to(qkv.device)


def error_of(out: Tensor, expected: Tensor, settled: Tensor) -> float:
    """``|out - expected| / |expected|`` at the settled tokens; infinite where any value is not finite."""
    if not bool(out.isfinite().all()):
        return float("inf")
    truth = expected[settled]
    return float((out[settled].double() - truth).norm() / truth.norm())


def attempt(case: Case, kind: Kind, make: Callable[[], Engine], backend: Backend) -> Outcome:
    """Make an engine, run it, compare it, time it.

    Args:
        case: its op node.
        kind: what is in it.
        make: builds and loads it.
        backend: where it runs.
    """
    outcome = Outcome(case, kind)
    try:
        engine = make()
    except Exception as error:  # whatever it is, the other engines are tried
        return dataclasses.replace(outcome, fault=_words(error), wrong=not _is_refusal(error))
    try:
        outcome = dataclasses.replace(outcome, activation_bytes=engine.activation_bytes)
        inputs = input_sets(case.shape, case.batch, case.precision, backend)
        outputs = [x.new_full((*x.shape[:3], case.shape.dim), float("nan"), dtype=torch.float16) for x in inputs]
        with _stream_of_its_own(backend):
            engine.run(qkv=inputs[0], out=outputs[0])
            backend.synchronize()
            relative = error_of(outputs[0], *_expected(case, kind, inputs[0]))
            outcome = dataclasses.replace(outcome, relative_error=relative)
            limit = _TOLERANCES[kind]
            if not relative <= limit:
                return dataclasses.replace(
                    outcome, fault=f"relative error {relative:.1e}; at most {limit:.0e} is rounding", wrong=True
                )
            if case.timed:
                calls = [partial(engine.run, qkv=x, out=y) for x, y in zip(inputs, outputs, strict=True)]
                return _timed(outcome, calls, backend)
    except Exception as error:
        too_large = isinstance(error, torch.cuda.OutOfMemoryError)
        return dataclasses.replace(outcome, fault=_words(error), wrong=not too_large)
    return outcome


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, (EdgeformerError, torch.cuda.OutOfMemoryError))


def _timed(outcome: Outcome, calls: Sequence[Callable[[], None]], backend: Backend) -> Outcome:
    try:
        median = backend.time(calls, graph=True, seconds=_SECONDS).median_us
        return dataclasses.replace(outcome, median_us=median, graph=True)
    except Exception as error:
        _say(f"{outcome.case.name}, {outcome.kind}: not captured into a CUDA graph: {_words(error)}")
    return dataclasses.replace(outcome, median_us=backend.time(calls, graph=False, seconds=_SECONDS).median_us)


@contextmanager
def _stream_of_its_own(backend: Backend) -> Iterator[None]:
    """TensorRT synchronizes more than it must on CUDA's default stream."""
    if backend.device.type == "cpu":
        yield
        return
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.synchronize()


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, EdgeformerError) else f"{type(error).__name__}: {text}"


def line_of(outcome: Outcome) -> str:
    """One engine in a line."""
    parts = [f"{outcome.case.name}, {outcome.kind}: {outcome.fault or 'right'}"]
    if outcome.relative_error is not None and not outcome.fault:
        parts.append(f"relative error {outcome.relative_error:.1e}")
    if outcome.activation_bytes is not None:
        parts.append(f"{outcome.activation_bytes / 2**20:.2f} MiB of activations")
    if outcome.median_us is not None:
        parts.append(f"{outcome.median_us:.1f} us" + ("" if outcome.graph else " without a CUDA graph"))
    return ", ".join(parts)


def answer(outcomes: Sequence[Outcome]) -> str:
    """The last line: how many engines are right, and how much faster the plugin makes them."""
    parts = []
    for kind in ("plugin", "body"):
        tried = [outcome for outcome in outcomes if outcome.kind == kind]
        if not tried:
            parts.append(f"{kind}: not tried")
            continue
        wrong = [outcome for outcome in tried if outcome.fault]
        text = f"{kind}: {len(tried) - len(wrong)} of {len(tried)} engines are right"
        parts.append(text + (f", first fault: {wrong[0].case.name}: {wrong[0].fault}" if wrong else ""))
    ratios = list(_ratios(outcomes))
    if ratios:
        parts.append(f"the plugin is {min(ratios):.1f} to {max(ratios):.1f} times as fast as the body")
    return "; ".join(parts)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """What the engines mean for the whole."""
    if any(outcome.wrong for outcome in outcomes):
        return WRONG
    return REFUSED if outcomes and all(outcome.fault for outcome in outcomes) else 0


def _ratios(outcomes: Sequence[Outcome]) -> Iterator[float]:
    """How many times as fast the plugin is, where both were timed in the same way."""
    timed = {(one.case, one.kind): one for one in outcomes if one.median_us is not None}
    for case in dict.fromkeys(case for case, _ in timed):
        body, plugin = timed.get((case, "body")), timed.get((case, "plugin"))
        if body and plugin and body.median_us and plugin.median_us and body.graph == plugin.graph:
            yield body.median_us / plugin.median_us


def _say(line: str) -> None:
    print(line, flush=True)  # at once: TensorRT may end the process


def build(builder: Builder) -> Iterator[Outcome]:
    """Every engine, built and not run."""
    for case in CASES:
        for kind in _kinds(builder):
            try:
                plan = builder.parsed(op_model(case), kind)
                _say(f"{case.name}, {kind}: {plan.nbytes} bytes")
                yield Outcome(case, kind)
            except Exception as fault:
                _say(f"{case.name}, {kind}: {_words(fault)}")
                yield Outcome(case, kind, _words(fault))


def _kinds(builder: Builder) -> tuple[Kind, ...]:
    return ("body",) if builder.library is None else ("body", "plugin")


def main() -> int:
    """Build and run engines of every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", type=Path, help="the plugin library")
    parser.add_argument("--sm", type=int, help="build ahead of time for this compute capability times ten; run nothing")
    parser.add_argument(
        "--until", type=float, default=math.inf, help="moment of the monotonic clock; no engine is begun after it"
    )
    arguments = parser.parse_args()
    try:
        trt = import_backend(require_backend("tensorrt_rtx"))
    except EdgeformerError as error:
        _say(str(error))
        return REFUSED
    _say(f"TensorRT-RTX {trt.__version__} imported")
    builder = Builder(trt, arguments.library, arguments.sm)
    if arguments.sm is not None:
        outcomes = list(build(builder))
        built = sum(not outcome.fault for outcome in outcomes)
        _say(f"{built} of {len(outcomes)} engines built for SM {arguments.sm}; none was run")
        return 0
    try:
        runtime = trt.Runtime(builder.logger)
        backend = _run_plain(builder, runtime)
    except Exception as error:
        _say(f"no engine runs on this GPU: {_words(error)}")
        return REFUSED
    _say(PLAIN_ENGINE_RUNS)
    try:
        builder.load_plugin(runtime.get_plugin_registry())
    except EdgeformerError as error:
        _say(f"no plugin: {error}")
        builder.library = None
    outcomes = []
    for case in CASES:
        for kind in _kinds(builder):
            if time.monotonic() > arguments.until:
                _say(f"{DROPPED}{case.name}, {kind}")
                continue

            def make(case: Case = case, kind: Kind = kind) -> Runner:
                return Runner(builder, runtime, builder.parsed(op_model(case), kind))

            outcomes.append(attempt(case, kind, make, backend))
            _say(line_of(outcomes[-1]))
    _say(answer(outcomes))
    return exit_code(outcomes)


if __name__ == "__main__":
    sys.exit(main())
