from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from edgeformer.engine.compiler import check_plugin_layers, compile_engine, count_plugin_layers, takes_override
from edgeformer.engine.profiles import BatchProfile, shape_ranges
from edgeformer.machine.backends import Flavour, require_backend
from edgeformer.machine.messages import MessageLog
from edgeformer.machine.plugin_library import PluginLibrary
from edgeformer.records.engine import BuildJob, Compiled, PluginEvidence
from tests.raising import raises

from .conftest import attention_model, linear_model


def make_job(folder: Path, model: onnx.ModelProto, *, library: PluginLibrary | None = None, **changes: Any) -> BuildJob:
    onnx.save_model(model, folder / "model.onnx")
    fields: dict[str, Any] = {
        "model": folder / "model.onnx",
        "engine": folder / "model.engine",
        "flavour": "tensorrt_rtx",
        "sms": (86,),
        "ahead_of_time": True,
        "shapes": shape_ranges(model, BatchProfile.parse("1:2:3")),
        "op_nodes": 0,
        "use_plugin": library is not None,
        "plugin_library": library.path if library else None,
        "embed_plugin": False,
        "workspace_bytes": None,
        "max_aux_streams": None,
        "cuda_graphs": False,
        "timing_cache": None,
        "timing_cache_out": None,
    }
    return BuildJob.model_validate({**fields, **changes})


class Module:
    """TensorRT with some of its names replaced."""

    def __init__(self, **names: Any) -> None:
        self._trt = importlib.import_module(require_backend("tensorrt_rtx").module)
        for name, value in names.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trt, name)


def compile_with(trt: Any, job: BuildJob, messages: MessageLog | None = None) -> Compiled:
    return compile_engine(trt, job, messages or MessageLog(), lambda phase, done, total: None)


def test_override_is_a_matter_of_the_module_not_of_its_version() -> None:
    assert takes_override(SimpleNamespace(OnnxParserFlag=SimpleNamespace(ENABLE_PLUGIN_OVERRIDE=3)))  # type: ignore[arg-type]
    assert not takes_override(SimpleNamespace(OnnxParserFlag=SimpleNamespace(NATIVE_INSTANCENORM=0)))  # type: ignore[arg-type]
    assert takes_override(Module())  # type: ignore[arg-type]


def test_an_error_that_tensorrt_gets_over_is_a_warning(tmp_path: Path, plugin_library: PluginLibrary) -> None:
    messages = MessageLog()
    messages.add("ERROR", "something broke")
    messages.add("WARNING", "careful")
    job = make_job(tmp_path, attention_model(1), library=plugin_library, op_nodes=1)
    # Behind them TensorRT may have its own to say: another logger of this process was first.
    assert compile_with(Module(), job, messages).warnings[:2] == (
        "TensorRT continued after an error: something broke",
        "careful",
    )


@pytest.mark.parametrize("override", [True, False])
def test_both_ways_to_the_plugin_give_the_same_network(
    tmp_path: Path, plugin_library: PluginLibrary, override: bool
) -> None:
    """TensorRT before 10.15 has no override flag: there the function is taken out of the model instead."""
    trt = Module() if override else Module(OnnxParserFlag=SimpleNamespace())
    job = make_job(tmp_path, attention_model(3), library=plugin_library, op_nodes=3)
    compiled = compile_with(trt, job)
    assert (compiled.plugin.in_network, compiled.plugin.in_engine) == (3, 3)
    # The op and, for each MatMul, its constant and a shuffle for the batch axes.
    assert compiled.parsed_layers == 12
    assert len(onnx.load_model(job.model).functions) == (1 if override else 0)


def test_a_parser_that_ignores_the_plugin_misses_the_gate(tmp_path: Path, plugin_library: PluginLibrary) -> None:
    class IgnoresFlags:
        def __init__(self, network: Any, logger: Any) -> None:
            self._parser = Module().OnnxParser(network, logger)

        def set_flag(self, flag: Any) -> None:
            pass

        def parse_from_file(self, path: str) -> bool:
            return bool(self._parser.parse_from_file(path))

    job = make_job(tmp_path, attention_model(2), library=plugin_library, op_nodes=2)
    with raises("EF628", "parsed network has 0", "needs 2"):
        compile_with(Module(OnnxParser=IgnoresFlags), job)
    assert not job.engine.exists()


@pytest.mark.parametrize(
    ("in_network", "in_engine", "expected", "place"),
    [(3, 3, 4, "parsed network has 3"), (4, 3, 4, "built engine has 3"), (1, None, 0, "parsed network has 1")],
)
def test_wrong_count_of_plugin_layers(in_network: int, in_engine: int | None, expected: int, place: str) -> None:
    evidence = PluginEvidence(in_network=in_network, in_engine=in_engine, source="a count")
    with raises("EF628", place, f"needs {expected}", "a count"):
        check_plugin_layers(evidence, expected)


@pytest.mark.parametrize("in_engine", [4, None])
def test_right_count_of_plugin_layers(in_engine: int | None) -> None:
    check_plugin_layers(PluginEvidence(in_network=4, in_engine=in_engine, source="a count"), 4)


def test_plugin_layers_of_every_generation_are_counted() -> None:
    types = SimpleNamespace(PLUGIN="one", PLUGIN_V3="three", CONVOLUTION="conv")
    layers = [SimpleNamespace(type=kind) for kind in ("one", "conv", "three", "three")]
    network = SimpleNamespace(num_layers=4, get_layer=layers.__getitem__)
    assert count_plugin_layers(SimpleNamespace(LayerType=types), network) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flavour", "listing", "in_engine"),
    [
        ("tensorrt_rtx", ["gemm", "custom_layer"], "missed"),
        ("tensorrt", ["PluginV3", "PluginV3", "Reformat"], 2),
        ("tensorrt", ["gemm"], None),
        ("tensorrt", [], None),
    ],
)
def test_engine_listing_counts_where_it_is_understood(
    tmp_path: Path, plugin_library: PluginLibrary, flavour: Flavour, listing: list[str], in_engine: int | str | None
) -> None:
    """Only the listing is made up: the network is parsed and built by TensorRT-RTX."""

    class Relisted(MessageLog):
        def add(self, severity: str, text: str) -> None:
            if text.startswith("Layers:"):
                text = "Layers:\n" + "\n".join(f"Name: a, LayerType: {kind}, Inputs: []" for kind in listing)
            super().add(severity, text)

    job = make_job(tmp_path, attention_model(2), library=plugin_library, op_nodes=2)
    # The flavour also decides how the library is loaded; that is done as the library at hand needs it.
    job = job.model_copy(update={"flavour": flavour})
    if in_engine == "missed":
        with raises("EF628", "built engine has 1", "needs 2"):
            compile_with(Module(), job, Relisted())
    else:
        assert compile_with(Module(), job, Relisted()).plugin.in_engine == in_engine


def test_sm_that_this_version_does_not_know_lists_what_it_knows(tmp_path: Path) -> None:
    with raises("EF607", "SM 75, 80, 86, 89, 120", "SM 77"):
        compile_with(Module(), make_job(tmp_path, linear_model(), sms=(86, 77)))


def test_builder_that_does_not_start_is_the_machines_fault(tmp_path: Path) -> None:
    def refuse(logger: Any) -> Any:
        logger.log(SimpleNamespace(name="ERROR"), "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with raises("EF606", "factory function returned nullptr", "CUDA initialization failure"):
        compile_with(Module(Builder=refuse), make_job(tmp_path, linear_model()))


class Cached:
    """A builder config around TensorRT's whose timing cache can be refused, and one that keeps what it gets."""

    def __init__(self, config: Any, accepts: bool) -> None:
        self.__dict__.update(config=config, accepts=accepts, content=b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["config"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["config"], name, value)

    def create_timing_cache(self, content: bytes) -> bytes:
        self.__dict__["content"] = content
        return content

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        return bool(self.__dict__["accepts"])


def cached_builder(accepts: bool) -> Any:
    def make(logger: Any) -> Any:
        builder = Module().Builder(logger)
        wrapped = SimpleNamespace(
            create_network=builder.create_network,
            create_optimization_profile=builder.create_optimization_profile,
            build_serialized_network=lambda network, config: builder.build_serialized_network(network, config.config),
        )
        configs: list[Any] = []

        def create_builder_config() -> Any:
            configs.append(Cached(builder.create_builder_config(), accepts))
            config = configs[-1]
            config.__dict__["get_timing_cache"] = lambda: SimpleNamespace(serialize=lambda: config.content + b" more")
            return config

        wrapped.create_builder_config = create_builder_config
        return wrapped

    return make


def test_timing_cache_is_read_and_written(tmp_path: Path) -> None:
    """TensorRT-RTX has no timing cache, so the cache is made up here; reading and writing it is our part."""
    (tmp_path / "in").write_bytes(b"timings")
    files: dict[str, Any] = {"timing_cache": tmp_path / "in", "timing_cache_out": tmp_path / "out"}
    compile_with(Module(Builder=cached_builder(True)), make_job(tmp_path, linear_model(), **files))
    assert (tmp_path / "out").read_bytes() == b"timings more"


def test_timing_cache_of_another_gpu_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"timings")
    files: dict[str, Any] = {"timing_cache": tmp_path / "in", "timing_cache_out": tmp_path / "out"}
    with raises("EF629", tmp_path / "in", Module().__version__):
        compile_with(Module(Builder=cached_builder(False)), make_job(tmp_path, linear_model(), **files))
    assert not (tmp_path / "out").exists()


def test_an_error_in_the_progress_callback_stops_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(phase: str, done: int, total: int) -> None:
        if done and not phase.startswith("Parsing"):
            raise BrokenPipeError("nobody listens")

    job = make_job(tmp_path, linear_model())
    with raises("EF625", "BuildCanceled"):
        compile_engine(Module(), job, MessageLog(), fail)  # type: ignore[arg-type]
    assert not job.engine.exists()
    assert "nobody listens" in capfd.readouterr().err
