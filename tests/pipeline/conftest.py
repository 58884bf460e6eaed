"""A nano model with random weights, exported once, and a bundle built from it once."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_finish import without_engine
from edgeformer.bundle import Manifest, StageRecord
from edgeformer.bundle.details import EngineDetails
from edgeformer.engine import targets
from edgeformer.graph.onnx_files import load_model
from edgeformer.machine import plugin_library
from edgeformer.machine.board import Memory
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.machine.jetpack import Release, list_jetpacks
from edgeformer.machine.plugin_library import find_plugin_library
from edgeformer.pipeline import BuildResult, Observer, build, device_plan, export_model
from edgeformer.records.engine import EngineReport

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors"
DIGITS = ROOT / "calibration" / "digits"
DOUBLE = Path(__file__).with_name("tensorrt_double")
ORIN = Gpu(0, "Orin", 87, 64_000_000_000)


@pytest.fixture(scope="session")
def nano_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "nano.onnx"
    export_model("biformer_nano", output=path, random_weights=True)
    return path


@pytest.fixture(scope="session")
def fp16_bundle(nano_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(nano_onnx, output=tmp_path_factory.mktemp("fp16") / "bundle", target="rtx-40", batch="1:2:4")


@pytest.fixture
def rtx_bundle(fp16_bundle: BuildResult, tmp_path: Path) -> Path:
    """A bundle for an RTX GPU whose engine is still to be built."""
    bundle = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, bundle)
    without_engine(bundle)
    return bundle


def engine_report(result: BuildResult) -> EngineReport:
    """The report on a bundle's engine."""
    details = result.manifest.details(EngineDetails)
    assert details is not None
    assert details.report is not None
    return details.report


class Recorder(Observer):
    def __init__(self) -> None:
        self.ran: list[str] = []

    def started(self, stage: str) -> None:
        self.ran.append(stage)


def linears_as_convolutions(result: BuildResult) -> bool:
    """Whether the 20 Linears of feature maps are convolutions in the typed graph, and the stage says so."""
    typed = load_model(result.path / "typed.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in typed.graph.initializer}
    pointwise = [n for n in typed.graph.node if n.op_type == "Conv" and shapes[n.input[1]][2:] == [1, 1]]
    assert len(pointwise) in (0, 20)
    types = result.manifest.stage("types")
    assert types is not None
    assert ("20 Linears as 1 x 1 convolutions" in (types.note or "")) == bool(pointwise)
    return bool(pointwise)


def weight_scale_sizes(bundle: Path) -> set[str]:
    """Of the INT8 weights of MatMul and Conv nodes: "one" scale or one "each" channel."""
    graph = load_model(bundle / "typed.onnx").graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("MatMul", "Conv") and node.input[1] in made]
    return {"each" if constants[made[node.input[1]].input[1]].dims else "one" for node in layers}


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make this machine a Jetson AGX Orin with JetPack 6.2; the file that tells its TensorRT what to do."""
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(DOUBLE))
    survey = GpuSurvey((ORIN,), "540.4", "12.6", "")
    jetpack = next(one for one in list_jetpacks() if one.name == "6.2")
    for module in (targets, device_plan):
        monkeypatch.setattr(module, "find_gpus", lambda: survey)
    monkeypatch.setattr(device_plan, "find_release", lambda: Release("36.4.3", jetpack, too_old=False))
    monkeypatch.setattr(device_plan, "read_memory", lambda: Memory(64_000_000_000, 40_000_000_000, 32_000_000_000))
    monkeypatch.setattr(device_plan, "power_mode", lambda: "MAXN")
    monkeypatch.setattr(device_plan, "jetson_facts", lambda release, survey: ())
    library = find_plugin_library()
    assert library is not None
    kernels = library.metadata.model_copy(update={"architectures": (87,)})
    there = plugin_library.PluginLibrary(library.path, kernels)
    monkeypatch.setattr(device_plan, "require_plugin_library", lambda sm: there)
    told = tmp_path / "told.json"
    told.write_text("{}")
    monkeypatch.setenv("TENSORRT_DOUBLE", str(told))
    return told


class Stopped(BaseException):
    """As a signal ends a program."""


def stop(*_: Any, **__: Any) -> None:
    raise Stopped


def stage_of(manifest: Manifest, name: str) -> StageRecord:
    found = manifest.stage(name)
    assert found is not None
    return found


def builds(told: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{told}.builds").read_text().splitlines()]
