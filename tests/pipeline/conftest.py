"""A nano model with random weights, exported once, and a bundle built from it once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.kill_finish import without_engine
from edgeformer.bundle.details import EngineDetails
from edgeformer.graph.onnx_files import load_model
from edgeformer.pipeline import BuildResult, Observer, build, export_model
from edgeformer.records.engine import EngineReport

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors"
DIGITS = ROOT / "calibration" / "digits"


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
