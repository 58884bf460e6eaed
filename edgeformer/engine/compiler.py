"""One TensorRT build, start to end, in the process that calls it: parse, profile, build, count the plugin layers.

`edgeformer.engine.worker` runs this in a child process. The same code serves ``tensorrt`` and ``tensorrt_rtx``; what
differs is asked from the module at hand (a flag that a version has or has not), never from a table of versions.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeformer.errors import EdgeformerError, EnvironmentFault, GateMissed, InputError
from edgeformer.machine.messages import MessageLog, make_logger
from edgeformer.machine.plugin_library import take_plugin_errors
from edgeformer.machine.plugin_registry import load_plugin_library
from edgeformer.ops.library_files import rtx_alias_of
from edgeformer.records.engine import BuildJob, Compiled, PluginEvidence, TensorInfo

__all__ = ["BuildFailed", "check_plugin_layers", "compile_engine", "count_plugin_layers", "takes_override"]

Progress = Callable[[str, int, int], None]

_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
# At detailed profiling verbosity the builder logs the layers of the finished engine, one per line.
_LISTING = "Layers:"
_LISTED_LAYER = re.compile(r"^Name: .*?, LayerType: (\w+)", re.MULTILINE)
# A plugin is a "custom_layer" in what TensorRT-RTX 1.7 compiles, a "PluginV3" where it stays a layer of its own.
_PLUGIN_KIND = re.compile("custom_layer|Plugin.*", re.IGNORECASE)
_KEEP = re.compile(f"^{_LISTING}|{_ACTIVATIONS.pattern}|{_WEIGHTS.pattern}")
# Harmless: our creator has defaults for the attributes of INT8 inputs and of LePE, and the nodes of the op's body have
# the same names in every place the parser inlines it.
_HARMLESS = (
    r"Attribute (q_scale|k_scale|v_scale|output_type|lepe_kernel|dim) not found in plugin node",
    r"A node named .* already exists",
)
# After any error TensorRT-RTX looks for a GPU and adds that there is none; an ahead-of-time build needs none.
_NO_DRIVER = "catchCudaError|ScopedCudaStream"
_PARSE_PHASE = "Parsing the ONNX model"
_NETWORK_SOURCE = "layer types of the parsed network"


class BuildFailed(EdgeformerError):
    """TensorRT took the model and could not build it; the message holds TensorRT's reason."""


def takes_override(trt: ModuleType) -> bool:
    """Whether this TensorRT's parser can prefer a plugin to a local function of the same name (10.15 on)."""
    return hasattr(trt.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE")


def compile_engine(trt: ModuleType, job: BuildJob, messages: MessageLog, progress: Progress) -> Compiled:
    """Build ``job.model`` into ``job.engine``.

    Args:
        trt: the TensorRT module.
        job: what to build.
        messages: takes TensorRT's messages.
        progress: called with (phase, steps done, steps in all) while it builds, from TensorRT's threads.

    Raises:
        InputError: TensorRT cannot parse the model, or the timing cache does not fit.
        EnvironmentFault: the plugin library cannot be loaded, or this TensorRT cannot build for the target.
        GateMissed: not every op node became a plugin layer.
        BuildFailed: TensorRT cannot build the network.
    """
    started = time.monotonic()
    messages.keeps = _KEEP
    logger = make_logger(trt, messages)
    builder = _builder(trt, logger, messages)
    messages.ignores = _ignored(job)
    if job.plugin_library is not None:
        registry = builder.get_plugin_registry()
        alias = rtx_alias_of(job.plugin_library)
        load_plugin_library(
            registry, job.plugin_library, flavour=job.flavour, rtx_alias=alias if alias.is_file() else None
        )
    # TensorRT 11 and TensorRT-RTX ignore the flag: their networks are always strongly typed.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    progress(_PARSE_PHASE, 0, 1)
    _parse(trt, network, logger, job, messages)
    progress(_PARSE_PHASE, 1, 1)

    expected = job.op_nodes if job.use_plugin else 0
    in_network = count_plugin_layers(trt, network)
    check_plugin_layers(PluginEvidence(in_network=in_network, in_engine=None, source=_NETWORK_SOURCE), expected)

    config = _config(trt, builder, network, job, messages)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildFailed("EF625", _explain("TensorRT cannot build this network", messages, job))
    kinds = _listed_layers(messages)
    evidence = _engine_evidence(in_network, kinds, job)
    check_plugin_layers(evidence, expected)
    job.engine.write_bytes(memoryview(serialized))
    if job.timing_cache_out is not None and (cache := config.get_timing_cache()) is not None:
        job.timing_cache_out.write_bytes(memoryview(cache.serialize()))
    return Compiled(
        tensorrt_version=trt.__version__,
        parsed_layers=network.num_layers,
        engine_layers=len(kinds) or None,
        plugin=evidence,
        activation_bytes=_bytes_in(messages, _ACTIVATIONS),
        weight_bytes=_bytes_in(messages, _WEIGHTS),
        build_seconds=time.monotonic() - started,
        tensors=_tensors(network),
        # An error that did not stop TensorRT must not go unnoticed.
        warnings=(*(f"TensorRT continued after an error: {text}" for text in messages.errors), *messages.warnings),
    )


def check_plugin_layers(evidence: PluginEvidence, expected: int) -> None:
    """Check that there are exactly as many plugin layers as expected, wherever they were counted.

    Raises:
        GateMissed: there are more or fewer.
    """
    for place, count in (("parsed network", evidence.in_network), ("built engine", evidence.in_engine)):
        if count is not None and count != expected:
            raise GateMissed(
                "EF628",
                f"the {place} has {count} plugin layers, and the graph needs {expected} "
                f"(counted from: {evidence.source}): the engine would not run what was verified",
            )


def count_plugin_layers(trt: ModuleType, network: Any) -> int:
    """The plugin layers of a network definition."""
    names = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
    kinds = {getattr(trt.LayerType, name) for name in names if hasattr(trt.LayerType, name)}
    return sum(network.get_layer(index).type in kinds for index in range(network.num_layers))


def _listed_layers(messages: MessageLog) -> list[str]:
    """Kinds of the layers in the builder's listing of the finished engine; empty where it listed none."""
    listing = next((note for note in reversed(messages.notes) if note.startswith(_LISTING)), "")
    return _LISTED_LAYER.findall(listing)


def _engine_evidence(in_network: int, kinds: list[str], job: BuildJob) -> PluginEvidence:
    """Count once more in the finished engine, so that a layer lost on the way shows."""
    in_engine = sum(_PLUGIN_KIND.fullmatch(kind) is not None for kind in kinds)
    if not kinds or (in_network and not in_engine and job.flavour == "tensorrt"):
        # We never saw what `tensorrt` calls a plugin here, so finding none proves nothing.
        source = f"{_NETWORK_SOURCE}; the builder's listing of the engine does not show plugins"
        return PluginEvidence(in_network=in_network, in_engine=None, source=source)
    source = f"{_NETWORK_SOURCE}; layer kinds in the builder's listing of the engine"
    return PluginEvidence(in_network=in_network, in_engine=in_engine, source=source)


def _ignored(job: BuildJob) -> re.Pattern[str]:
    """Messages that are harmless in this build."""
    return re.compile("|".join((*_HARMLESS, _NO_DRIVER) if job.ahead_of_time else _HARMLESS))


def _builder(trt: ModuleType, logger: Any, messages: MessageLog) -> Any:
    try:
        builder: Any = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        # pybind11 turns the null pointer of a machine without a working driver into one of these.
        raise EnvironmentFault("EF606", _explain(f"TensorRT does not start ({error})", messages, None)) from error
    return builder


def _parse(trt: ModuleType, network: Any, logger: Any, job: BuildJob, messages: MessageLog) -> None:
    parser: Any = trt.OnnxParser(network, logger)
    if job.use_plugin and job.op_nodes:
        if takes_override(trt):
            parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
        elif job.has_body:
            _strip_function(job.model)
    if parser.parse_from_file(str(job.model)):
        return
    headline = f"TensorRT {trt.__version__} cannot parse the model"
    errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    if not errors:
        raise InputError("EF624", _explain(headline, messages, job))
    raise InputError("EF624", "\n  ".join([f"{headline}:", *_lines(errors, messages), *_plugin_messages(job)]))


def _strip_function(path: Path) -> None:
    """Take the op's body out of the model file, so that a parser without the override flag looks for the plugin."""
    import onnx

    from edgeformer.ops.bi_level_routing_attention import without_function

    onnx.save_model(without_function(onnx.load_model(path)), path)


def _parser_error(error: Any) -> str:
    name, operator = error.node_name(), error.node_operator()
    where = f"node '{name}' ({operator}): " if name or operator else ""
    if "Plugin not found" in error.desc():
        where += f"TensorRT has no operator '{operator}', and no plugin of that name is loaded: "
    stack = error.local_function_stack()
    inside = f" in {' > '.join(stack)}" if stack else ""
    return f"{where}[{error.code().name}] {error.desc().strip()}{inside}"


def _config(
    trt: ModuleType,
    builder: Any,
    network: Any,
    job: BuildJob,
    messages: MessageLog,
) -> Any:
    config = builder.create_builder_config()
    # For the listing of the engine's layers; it changes neither the kernels nor, in TensorRT-RTX, the engine's size.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    if job.tuning_memory_bytes is not None and hasattr(trt.MemoryPoolType, "TACTIC_DRAM"):
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, job.tuning_memory_bytes)
    if job.max_aux_streams is not None:
        config.max_aux_streams = job.max_aux_streams
    if job.cuda_graphs and job.flavour == "tensorrt_rtx":
        # Memory that the runtime allocates while it runs cannot be captured.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if job.ahead_of_time:
        capabilities = _capabilities(trt, job.sms)
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(capability, index)
    if any(not shapes.is_fixed for shapes in job.shapes.values()) or _is_dynamic(network):
        profile = builder.create_optimization_profile()
        for name, shapes in job.shapes.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) < 0:
            raise BuildFailed("EF625", _explain("TensorRT does not accept this range of shapes", messages, job))
    if job.embed_plugin and job.plugin_library is not None:
        config.plugins_to_serialize = [str(job.plugin_library)]
    if job.timing_cache_out is not None:
        content = job.timing_cache.read_bytes() if job.timing_cache is not None else b""
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise InputError(
                "EF629",
                f"timing cache {job.timing_cache} is of another GPU, or of another TensorRT than {trt.__version__}: "
                "delete it, or name another",
            )
    return config


def _capabilities(trt: ModuleType, sms: tuple[int, ...]) -> list[Any]:
    """TensorRT-RTX's names of compute capabilities.

    Raises:
        EnvironmentFault: this version does not have all of them.
    """
    names = trt.ComputeCapability.__members__
    missing = [sm for sm in sms if f"SM{sm}" not in names]
    if missing:
        known = sorted(int(name[2:]) for name in names if name.startswith("SM"))
        raise EnvironmentFault(
            "EF607",
            f"TensorRT-RTX {trt.__version__} builds for SM {', '.join(map(str, known))}, not for SM "
            f"{', '.join(map(str, missing))}: install a newer one, or choose another target",
        )
    return [names[f"SM{sm}"] for sm in sms]


def _is_dynamic(network: Any) -> bool:
    return any(-1 in tuple(network.get_input(index).shape) for index in range(network.num_inputs))


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    """A ``trt.IProgressMonitor`` that reports each phase's steps, from 0 up to all of them."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]  # the base class is found at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            except Exception:
                # An exception must not cross TensorRT's frames; False asks it to stop, which is what is meant.
                traceback.print_exc()
                return False
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

    return Monitor()


def _tensors(network: Any) -> tuple[TensorInfo, ...]:
    inputs = [("input", network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [("output", network.get_output(index)) for index in range(network.num_outputs)]
    return tuple(
        TensorInfo.model_validate(
            {"name": tensor.name, "io": io, "dtype": tensor.dtype.name, "shape": tuple(tensor.shape)}
        )
        for io, tensor in [*inputs, *outputs]
    )


def _bytes_in(messages: MessageLog, pattern: re.Pattern[str]) -> int | None:
    for note in reversed(messages.notes):
        if found := pattern.search(note):
            return int(found.group(1))
    return None


def _explain(headline: str, messages: MessageLog, job: BuildJob | None) -> str:
    reasons = messages.errors or messages.warnings or ["TensorRT gave no reason"]
    return "\n  ".join([f"{headline}. TensorRT says:", *_lines(reasons, messages), *_plugin_messages(job)])


def _lines(texts: list[str], messages: MessageLog) -> list[str]:
    """Each different line once, without those that are ignored, which a parser's errors hold, too."""
    lines = (line.strip() for text in texts for line in messages.kept_lines(text))
    return list(dict.fromkeys(line for line in lines if line))


def _plugin_messages(job: BuildJob | None) -> list[str]:
    if job is None or job.plugin_library is None:
        return []
    return [f"the plugin says: {text}" for text in take_plugin_errors(job.plugin_library)]
